// The registers of the controller (§3.1) and what writing them sets off. The turn is in
// controller.cc.
#include <algorithm>
#include <cstring>
#include <utility>

#include "tools/nvme/controller.h"

namespace outboard::nvme {
namespace {

// §3.1.1: queues of 1024 entries, contiguous; ready within 10 s; NVM command set; pages of 4 KiB
// to 64 KiB; doorbell stride 4.
constexpr u64 kCapabilities =
    u64{kMaxQueueEntries - 1} | u64{1} << 16 | u64{20} << 24 | u64{1} << 37 | u64{4} << 52;

constexpr u32 kCcWritable = 0x00ff'fff1;

}  // namespace

u32 Controller::read_register(u64 offset) const {
  const Registers& r = core_.state.registers;
  switch (offset) {
    case reg::cap:
      return static_cast<u32>(kCapabilities);
    case reg::cap + 4:
      return static_cast<u32>(kCapabilities >> 32);
    case reg::version:
      return kVersion14;
    case reg::intms:
    case reg::intmc:
      return r.interrupt_mask;
    case reg::cc:
      return r.cc;
    case reg::csts:
      return r.csts;
    case reg::aqa:
      return r.aqa;
    case reg::asq:
      return static_cast<u32>(r.asq);
    case reg::asq + 4:
      return static_cast<u32>(r.asq >> 32);
    case reg::acq:
      return static_cast<u32>(r.acq);
    case reg::acq + 4:
      return static_cast<u32>(r.acq >> 32);
    default:
      return 0;
  }
}

void Controller::read_bar(u64 offset, std::span<std::byte> data) {
  for (std::size_t i = 0; i < data.size();) {
    const u64 at = offset + i;
    const u64 aligned = at & ~u64{3};
    // Doorbells are write-only; they read as zero whether mapped pages show more or not.
    const u32 value = aligned < reg::doorbells ? read_register(aligned) : 0;
    const std::size_t skip = at - aligned;
    const std::size_t count = std::min(data.size() - i, sizeof(value) - skip);
    std::memcpy(data.data() + i, reinterpret_cast<const std::byte*>(&value) + skip, count);
    i += count;
  }
}

void Controller::write_bar(u64 offset, std::span<const std::byte> data) {
  if (offset % 4 != 0 || data.size() % 4 != 0 || data.size() > 8) return;
  for (std::size_t i = 0; i < data.size(); i += 4) {
    u32 value;
    std::memcpy(&value, data.data() + i, sizeof(value));
    write_register(offset + i, value);
  }
}

void Controller::write_register(u64 offset, u32 value) {
  Registers& r = core_.state.registers;
  const auto low = [&](u64& whole) { whole = (whole & ~u64{0xffff'ffff}) | (value & ~0xfffu); };
  const auto high = [&](u64& whole) { whole = (whole & 0xffff'ffff) | u64{value} << 32; };
  switch (offset) {
    case reg::intms:
      r.interrupt_mask |= value;
      core_.interrupts.set_pin(pin_level());
      return;
    case reg::intmc:
      r.interrupt_mask &= ~value;
      core_.interrupts.set_pin(pin_level());
      return;
    case reg::cc:
      write_cc(value & kCcWritable);
      return;
    case reg::aqa:
      r.aqa = value & 0x0fff'0fff;
      return;
    case reg::asq:
      low(r.asq);
      return;
    case reg::asq + 4:
      high(r.asq);
      return;
    case reg::acq:
      low(r.acq);
      return;
    case reg::acq + 4:
      high(r.acq);
      return;
    default:
      break;
  }
  if (offset < reg::doorbells || offset >= reg::doorbells + kDoorbellPageSize) return;
  const u32 index = static_cast<u32>((offset - reg::doorbells) / 4);
  ++core_.counters.doorbell_writes;
  if (!active() || discarding_) return;
  const u16 queue = static_cast<u16>(index / 2);
  const bool live = queue < kMaxQueues && (index % 2 == 0 ? core_.queues.sq(queue).live
                                                          : core_.queues.cq(queue).live) != 0;
  if (!live) {
    core_.events.notify(EventType::error, kEventInvalidDoorbell, LogId::error);
    return;
  }
  core_.doorbells.store(index, value);
}

void Controller::write_cc(u32 value) {
  Registers& r = core_.state.registers;
  const u32 old = r.cc;
  r.cc = value;
  keep_order();
  const bool was = (old & kCcEnable) != 0;
  const bool is = (value & kCcEnable) != 0;
  if (!was && is && !discarding_) enable();
  if (was && !is) begin_disable();
  const bool notified = (value >> 14 & 3) != 0;
  if (notified && (old >> 14 & 3) == 0) begin_shutdown();
}

void Controller::enable() {
  Registers& r = core_.state.registers;
  const u32 page_shift = r.cc >> 7 & 0xf;
  const u32 sq_entries = (r.aqa & 0xfff) + 1;
  const u32 cq_entries = (r.aqa >> 16 & 0xfff) + 1;
  ++core_.counters.enables;
  core_.io_clock.enabled();
  r.csts = 0;
  const u64 page_mask = (u64{4096} << page_shift) - 1;
  const bool command_set = (r.cc >> 4 & 7) == 0;
  const bool round_robin = (r.cc >> 11 & 7) == 0;
  if (!command_set || !round_robin || page_shift > 4 || sq_entries < 2 || cq_entries < 2 ||
      (r.asq & page_mask) != 0 || (r.acq & page_mask) != 0) {
    fatal();
    return;
  }
  fail_point(FailPoint::enabling);
  core_.page_size = 4096u << page_shift;
  core_.queues.create_cq(0, r.acq, cq_entries, 0, true);
  core_.queues.create_sq(0, 0, r.asq, sq_entries);
  keep_order();
  r.csts = kCstsReady;
}

// §7.3.2: everything stops; RDY stays until no backend can touch guest memory any more.
void Controller::begin_disable() {
  ++core_.counters.disables;
  fail_point(FailPoint::disabling);
  discarding_ = true;
  suspended_ = false;
  shutting_down_ = false;
  for (Request* request : admin_.take_waiting()) release(*request);
  for (Request* request : core_.queues.take_waiting()) release(*request);
  if (Request* request = format_.cancel(); request != nullptr) release(*request);
  if (paused_format_ != nullptr) release(*std::exchange(paused_format_, nullptr));
  release_posted();
  core_.journal.clear();
  core_.queues.clear();
  core_.interrupts.set_pin(false);
  if (backend_requests_ == 0) end_disable();
}

void Controller::end_disable() {
  Registers& r = core_.state.registers;
  discarding_ = false;
  r.csts = 0;
  r.interrupt_mask = 0;
  core_.features.reset();
  core_.logs.reset();
  keep_order();
  if ((r.cc & kCcEnable) != 0) enable();
}

// §7.6.2: finish what is in flight, put caches on media, then say so.
void Controller::begin_shutdown() {
  Registers& r = core_.state.registers;
  if (!active()) {
    r.csts = (r.csts & ~kCstsShutdownMask) | kCstsShutdownComplete;
    return;
  }
  r.csts = (r.csts & ~kCstsShutdownMask) | kCstsShutdownOccurring;
  shutting_down_ = true;
  shutdown_next_ = 0;
}

// The host broke what no status can tell: it must reset the controller.
void Controller::fatal() {
  core_.state.registers.csts |= kCstsFatal;
}

}  // namespace outboard::nvme
