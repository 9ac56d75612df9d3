#include "tools/nvme/controller.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace outboard::nvme {
namespace {

// §3.1.1: queues of 1024 entries, contiguous; ready within 10 s; NVM command set; pages of 4 KiB
// to 64 KiB; doorbell stride 4.
constexpr u64 kCapabilities =
    u64{kMaxQueueEntries - 1} | u64{1} << 16 | u64{20} << 24 | u64{1} << 37 | u64{4} << 52;

constexpr u32 kCcWritable = 0x00ff'fff1;

u32 index_of(const std::vector<Namespace>& all, const Namespace& ns) {
  return static_cast<u32>(&ns - all.data());
}

}  // namespace

Controller::Controller(ControllerOptions options, std::vector<Namespace> namespaces,
                       ControllerState& state, Doorbells& doorbells, GuestDma& dma,
                       Interrupts& interrupts)
    : core_(std::move(options.identity), std::move(namespaces), options.io_queues,
            static_cast<u16>(options.io_queues + 1), state, doorbells, dma, interrupts),
      admin_(core_, *this),
      io_(core_, *this),
      format_(core_, *this),
      submitted_(core_.namespaces.size()),
      in_backend_(core_.namespaces.size()) {}

// --- registers

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
  const bool live = queue < kMaxQueues &&
                    (index % 2 == 0 ? core_.queues.sq(queue).live : core_.queues.cq(queue).live);
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
  r.csts = 0;
  const u64 page_mask = (u64{4096} << page_shift) - 1;
  const bool command_set = (r.cc >> 4 & 7) == 0;
  const bool round_robin = (r.cc >> 11 & 7) == 0;
  if (!command_set || !round_robin || page_shift > 4 || sq_entries < 2 || cq_entries < 2 ||
      (r.asq & page_mask) != 0 || (r.acq & page_mask) != 0) {
    fatal();
    return;
  }
  core_.page_size = 4096u << page_shift;
  core_.queues.create_cq(0, r.acq, cq_entries, 0, true);
  core_.queues.create_sq(0, 0, r.asq, sq_entries);
  r.csts = kCstsReady;
}

// §7.3.2: everything stops; RDY stays until no backend can touch guest memory any more.
void Controller::begin_disable() {
  ++core_.counters.disables;
  discarding_ = true;
  shutting_down_ = false;
  for (Request* request : admin_.take_waiting()) release(*request);
  for (Request* request : core_.queues.take_waiting()) release(*request);
  if (Request* request = format_.cancel(); request != nullptr) release(*request);
  if (paused_format_ != nullptr) release(*std::exchange(paused_format_, nullptr));
  release_posted();
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

void Controller::reset() {
  const bool enabled = (core_.state.registers.cc & kCcEnable) != 0;
  core_.state.registers.cc = 0;
  ++core_.counters.device_resets;
  if (enabled || active()) begin_disable();
  drain();
  core_.state.registers = Registers{};
  core_.features.reset();
  core_.logs.reset();
  core_.queues.clear();
  core_.queues.forget_host_memory();
  core_.interrupts.set_pin(false);
}

void Controller::before_window_change() {
  drain();
  core_.queues.forget_host_memory();
}

bool Controller::flush_all() {
  drain();
  bool good = true;
  Request flush;
  for (Namespace& ns : core_.namespaces) {
    flush.kind = BackendRequest::Kind::flush;
    flush.error = 0;
    ns.backend->submit(flush);
    ns.backend->kick();
    done_.clear();
    while (done_.empty()) {
      ns.backend->wait();
      ns.backend->reap(done_);
    }
    done_.clear();
    good = good && flush.error == 0;
  }
  return good;
}

// --- the turn

bool Controller::turn() {
  bool busy = false;
  if (active() && !fatal_state() && !discarding_) {
    ++core_.counters.doorbell_polls;
    busy |= look_at_doorbells();
    busy |= fetch();
  }
  kick();
  busy |= reap();
  settle();
  busy |= kick();  // what settle() began
  return busy;
}

bool Controller::kick() {
  bool any = false;
  for (u32 i = 0; i < submitted_.size(); ++i) {
    if (!submitted_[i]) continue;
    submitted_[i] = false;
    core_.namespaces[i].backend->kick();
    any = true;
  }
  return any;
}

bool Controller::look_at_doorbells() {
  bool work = false;
  const auto judge = [&](Queues::Look look) {
    if (look == Queues::Look::work) work = true;
    if (look == Queues::Look::invalid_value) {
      core_.events.notify(EventType::error, kEventInvalidDoorbellValue, LogId::error);
      work = true;
    }
  };
  for (u16 id = 0; id <= core_.queues.highest_cq(); ++id) {
    if (core_.queues.cq(id).live) judge(core_.queues.look_at_cq(id));
  }
  for (const u16 id : core_.queues.live_sqs()) judge(core_.queues.look_at_sq(id));
  if (work && !core_.interrupts.message_signalled()) core_.interrupts.set_pin(pin_level());
  return work;
}

bool Controller::fetch() {
  bool any = false;
  turn_bytes_ = 0;
  // Round robin (§4.13.1); a copy, since a command may create or delete queues.
  const std::vector<u16> order = core_.queues.live_sqs();
  const u32 burst = std::min(kFetchesPerTurn, 1u << (core_.state.features.arbitration & 7));
  ++next_sq_;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const u16 id = order[(next_sq_ + i) % order.size()];
    for (u32 n = 0;
         n < burst && turn_bytes_ < kBytesPerTurn && core_.queues.ready(id) && !fatal_state();
         ++n) {
      const std::size_t reserve = id == 0 ? 0 : kAdminReserve;
      if (free_.size() + kRequests - requests_.size() <= reserve) break;
      if (free_.empty()) {
        requests_.push_back(std::make_unique<Request>());
        free_.push_back(requests_.back().get());
      }
      Request& request = *free_.back();
      bool conflict = false;
      const auto fetched = core_.queues.fetch(id, request.command, conflict);
      if (fetched == Queues::Fetched::unreachable) fatal();
      if (fetched != Queues::Fetched::command) break;
      any = true;
      free_.pop_back();
      request.sq = id;
      request.ns = nullptr;
      request.status = Status::success;
      request.dw0 = 0;
      request.may_discard = false;
      request.durable = false;
      request.length = 0;
      if (conflict) {
        finish(request, Status::command_id_conflict, 0);
      } else {
        execute(request);
      }
    }
  }
  return any;
}

void Controller::execute(Request& request) {
  if (request.sq != 0) {
    io_.execute(request);
  } else if (static_cast<AdminOpcode>(request.command.opcode) == AdminOpcode::format_nvm) {
    format_.execute(request);
  } else {
    admin_.execute(request);
  }
}

void Controller::start(Request& request, Namespace& ns) {
  request.error = 0;
  const bool copies =
      request.kind == BackendRequest::Kind::read || request.kind == BackendRequest::Kind::write;
  if (copies) turn_bytes_ += request.length;
  const u32 index = index_of(core_.namespaces, ns);
  ++in_backend_[index];
  ++backend_requests_;
  submitted_[index] = true;
  ns.backend->submit(request);
}

bool Controller::reap() {
  if (backend_requests_ == 0) return false;
  bool any = false;
  for (u32 i = 0; i < in_backend_.size(); ++i) {
    if (in_backend_[i] == 0) continue;
    done_.clear();
    core_.namespaces[i].backend->reap(done_);
    in_backend_[i] -= static_cast<u32>(done_.size());
    backend_requests_ -= static_cast<u32>(done_.size());
    any = any || !done_.empty();
    for (BackendRequest* done : done_) advance(static_cast<Request&>(*done));
  }
  done_.clear();
  kick();
  return any;
}

void Controller::advance(Request& request) {
  if (&request == &shutdown_flush_) {
    shutdown_flushing_ = false;
  } else if (discarding_) {
    release(request);
  } else if (request.sq != 0) {
    io_.advance(request);
  } else if (draining_) {
    paused_format_ = &request;  // its next step would make the caller wait for the whole erasure
  } else {
    format_.advance(request);
  }
}

// What becomes possible once commands have finished.
void Controller::settle() {
  if (discarding_) {
    if (backend_requests_ == 0) end_disable();
    return;
  }
  if (!active()) return;
  if (!fatal_state()) {
    if (paused_format_ != nullptr) format_.advance(*std::exchange(paused_format_, nullptr));
    format_.settle();
    admin_.settle();
  }
  if (shutting_down_ && !shutdown_flushing_) {
    if (shutdown_next_ < core_.namespaces.size()) {
      if (backend_requests_ == 0) {
        shutdown_flushing_ = true;
        shutdown_flush_.kind = BackendRequest::Kind::flush;
        start(shutdown_flush_, core_.namespaces[shutdown_next_++]);
      }
    } else {
      Registers& r = core_.state.registers;
      shutting_down_ = false;
      ++core_.counters.shutdowns;
      r.csts = (r.csts & ~kCstsShutdownMask) | kCstsShutdownComplete;
    }
  }
  if (core_.queues.unreachable()) fatal();
  release_posted();
  signal();
}

void Controller::finish(Request& request, Status status, u32 dw0) {
  if (discarding_) {
    release(request);
    return;
  }
  request.status = status;
  request.dw0 = dw0;
  ++(request.sq == 0 ? core_.counters.admin : core_.counters.io)[request.command.opcode];
  if (status != Status::success && status != Status::abort_requested) {
    ++core_.counters.errors;
    const bool has_lba =
        request.sq != 0 && request.command.opcode != static_cast<u8>(IoOpcode::dataset_management);
    const u64 lba = has_lba ? u64{request.command.dw11} << 32 | request.command.dw10 : 0;
    core_.logs.add_error(request.sq, request.command, status_field(status), lba);
  }
  if (!core_.queues.post(request)) {
    fatal();
    release(request);
  }
}

void Controller::release_posted() {
  for (Request* request : core_.queues.posted()) release(*request);
  core_.queues.posted().clear();
}

void Controller::release(Request& request) {
  if (&request == &shutdown_flush_) return;
  if (request.ns != nullptr) {
    --request.ns->in_flight;
    request.ns = nullptr;
  }
  request.bounced = false;
  request.bounce.release();
  free_.push_back(&request);
}

bool Controller::pin_level() const {
  if (!active() || (core_.state.registers.interrupt_mask & 1) != 0) return false;
  for (u16 id = 0; id <= core_.queues.highest_cq(); ++id) {
    if (core_.queues.cq(id).live && core_.queues.cq(id).interrupts &&
        core_.queues.cq_has_unread(id)) {
      return true;
    }
  }
  return false;
}

void Controller::signal() {
  const std::vector<u16> rung = core_.queues.take_rung();
  if (rung.empty()) return;
  if (!core_.interrupts.message_signalled()) {
    ++core_.counters.interrupts;
    core_.interrupts.set_pin(pin_level());
    return;
  }
  for (const u16 id : rung) {
    if (!core_.queues.cq(id).live || !core_.queues.cq(id).interrupts) continue;
    ++core_.counters.interrupts;
    core_.interrupts.raise(core_.queues.cq(id).vector);
  }
}

void Controller::drain() {
  draining_ = true;
  while (backend_requests_ != 0) {
    for (u32 i = 0; i < in_backend_.size(); ++i) {
      if (in_backend_[i] == 0) continue;
      core_.namespaces[i].backend->kick();
      core_.namespaces[i].backend->wait();
      break;
    }
    reap();
    if (!discarding_) continue;
    if (backend_requests_ == 0) end_disable();
  }
  draining_ = false;
  if (!discarding_) release_posted();
  signal();
}

}  // namespace outboard::nvme
