#include "tools/nvme/vfio_device.h"

#include <cerrno>
#include <cstring>

#include <sys/eventfd.h>

#include "tools/nvme/bytes.h"

namespace outboard::nvme {
namespace {

namespace wire = vfio_user::wire;

constexpr u32 kPinIndex = 0;
constexpr u32 kMsixIndex = 2;
constexpr u32 kErrorIndex = 3;
constexpr u32 kRequestIndex = 4;
constexpr u32 kConfigRegion = 7;
// The last doorbell of the page, of a queue that cannot be: no guest rings it.
constexpr u64 kReservedDoorbell = reg::doorbells + kDoorbellPageSize - 4;

ControllerOptions with_mode(ControllerOptions options, DoorbellMode mode) {
  options.identity.doorbell_buffer = mode == DoorbellMode::shadow;
  return options;
}

}  // namespace

VfioDevice::VfioDevice(ControllerOptions options, std::vector<Namespace> namespaces,
                       std::unique_ptr<Doorbells> doorbells, DoorbellMode mode, StateFile* file)
    : mode_(mode),
      doorbells_(std::move(doorbells)),
      file_(file),
      saved_(file != nullptr ? &file->state() : nullptr),
      own_(file != nullptr ? nullptr : std::make_unique<ControllerState>()),
      windows_(saved_),
      controller_(with_mode(std::move(options), mode), std::move(namespaces),
                  saved_ != nullptr ? saved_->now : *own_, *doorbells_, *this, *this, saved_),
      config_(controller_.vectors()),
      pending_(controller_.vectors()),
      taking_over_(file != nullptr && file->left_over()),
      owed_(controller_.vectors()) {
  if (mode_ == DoorbellMode::shadow) {
    wake_ = vfio_user::UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  }
  constexpr u32 kAccess = wire::kRegionReadable | wire::kRegionWritable;
  vfio_user::ServerRegion& registers = shape_.regions[0];
  registers.flags = kAccess;
  registers.size = kBar0Size;
  if (mode_ == DoorbellMode::page) {
    registers.flags |= wire::kRegionMappable;
    registers.areas = {{reg::doorbells, kDoorbellPageSize}};
    registers.fd = doorbells_->fd();
  }
  shape_.regions[kMsixTableBar].flags = kAccess;
  shape_.regions[kMsixTableBar].size = kMsixBarSize;
  shape_.regions[kConfigRegion].flags = kAccess;
  shape_.regions[kConfigRegion].size = ConfigSpace::kSize;
  shape_.irqs[kPinIndex] = {wire::kIrqEventfd | wire::kIrqMaskable | wire::kIrqAutomasked, 1};
  shape_.irqs[kMsixIndex] = {wire::kIrqEventfd, controller_.vectors()};
  // Never raised, but a client that finds them missing warns (QEMU).
  shape_.irqs[kErrorIndex] = {wire::kIrqEventfd, 1};
  shape_.irqs[kRequestIndex] = {wire::kIrqEventfd, 1};
  // PCI 3.0 §6.8.2.9: vectors are masked after reset.
  for (u32 i = 0; i < controller_.vectors(); ++i) put<u32>(msix_, 16 * i + 12, 1);
  if (taking_over_) {
    config_.restore(saved_->config);
    msix_ = saved_->msix;
    controller_.take_over();
  } else if (saved_ != nullptr) {
    reset_function();
  }
}

int VfioDevice::region_read(std::uint32_t region, std::uint64_t offset, std::span<std::byte> data) {
  if (region == 0) {
    controller_.read_bar(offset, data);
  } else if (region == kMsixTableBar) {
    for (u32 i = 0; i < pending_.size(); ++i) {
      const std::byte bit{static_cast<u8>(1u << (i % 8))};
      std::byte& byte = msix_[kMsixPbaOffset + i / 8];
      byte = pending_[i] ? byte | bit : byte & ~bit;
    }
    std::memcpy(data.data(), msix_.data() + offset, data.size());
  } else if (region == kConfigRegion) {
    config_.show_pin(pin_);
    config_.read(offset, data);
  } else {
    return EINVAL;
  }
  return 0;
}

int VfioDevice::region_write(std::uint32_t region, std::uint64_t offset,
                             std::span<const std::byte> data) {
  // A client that only looks leaves the state to the one that will come back.
  if (taking_over_ && !client_resumes_) forget_predecessor();
  if (region == 0) {
    controller_.write_bar(offset, data);
    // The guest has reset what waited.
    if (taking_over_ && !controller_.suspended()) taking_over_ = false;
  } else if (region == kMsixTableBar) {
    // The table only; the pending bits are ours.
    const u64 end = std::min<u64>(kMsixTableOffset + 16u * pending_.size(), offset + data.size());
    if (offset < end) {
      std::memcpy(msix_.data() + offset, data.data(), end - offset);
      if (saved_ != nullptr) std::memcpy(saved_->msix.data() + offset, data.data(), end - offset);
    }
  } else if (region == kConfigRegion) {
    if (config_.write(offset, data)) reset_function();
    if (saved_ != nullptr) config_.save(saved_->config);
    signal_pin();  // INTx may have been enabled
    if (taking_over_) try_to_resume();
  } else {
    return EINVAL;
  }
  return 0;
}

void VfioDevice::reset_function() {
  taking_over_ = false;
  controller_.reset();
  config_.reset();
  if (saved_ != nullptr) config_.save(saved_->config);
  pending_.assign(pending_.size(), false);
  pin_ = pin_told_ = false;
}

// What it has left is another guest's.
void VfioDevice::forget_predecessor() {
  reset_function();
  windows_.clear();
  owed_.assign(owed_.size(), false);
}

void VfioDevice::reset() {
  reset_function();
}

std::optional<vfio_user::ResumeCapability> VfioDevice::resume() {
  if (file_ == nullptr) return std::nullopt;
  client_resumes_ = true;
  return vfio_user::ResumeCapability{.id = file_->id(), .resumed = taking_over_};
}

void VfioDevice::connected() {
  client_left_ = false;
  if (saved_ != nullptr) saved_->attached = 1;
  if (taking_over_ && client_resumes_) owed_.assign(owed_.size(), true);
  controller_.io_clock().connected();
}

// One that leaves before the state was taken over may come again.
void VfioDevice::disconnected() {
  client_left_ = true;
  client_resumes_ = false;
  owed_.assign(owed_.size(), false);
  if (leaving_) return;
  if (taking_over_) {
    config_.restore(saved_->config);
    return;
  }
  reset_function();
  windows_.clear();
  if (saved_ != nullptr) saved_->attached = 0;
}

void VfioDevice::dma_mapped(const vfio_user::ServerWindow& window) {
  controller_.before_window_change();
  if (taking_over_ && !(client_resumes_ && windows_.fits(window))) forget_predecessor();
  windows_.add(window);
  if (taking_over_) try_to_resume();
}

void VfioDevice::dma_unmapping(const vfio_user::ServerWindow& window) {
  controller_.before_window_change();
  windows_.remove(window, /*forget=*/!taking_over_ && !leaving_);
}

// The client brings guest memory first, then its configuration, bus mastering in it. Not before all
// the queues are within reach: without them the controller would have to say that it is broken.
void VfioDevice::try_to_resume() {
  if (!config_.bus_master()) return;
  const ControllerState& state = saved_->now;
  for (u16 id = 0; id < kMaxQueues && controller_.suspended(); ++id) {
    const SqState& sq = state.sq[id];
    const CqState& cq = state.cq[id];
    if (sq.live != 0 && !windows_.cover(sq.base, u64{sq.entries} * sizeof(Command), false)) return;
    if (cq.live != 0 && !windows_.cover(cq.base, u64{cq.entries} * sizeof(Completion), true)) {
      return;
    }
  }
  taking_over_ = false;
  controller_.resume();
}

std::span<std::byte> VfioDevice::translate(u64 address, u64 size, Access access) {
  return server_->translate(address, size, access == Access::write);
}

bool VfioDevice::read(u64 address, std::span<std::byte> into) {
  return server_->dma_read(address, into) == 0;
}

bool VfioDevice::write(u64 address, std::span<const std::byte> from) {
  return server_->dma_write(address, from) == 0;
}

bool VfioDevice::message_signalled() const {
  // Some clients arm vectors and keep the enable bit to themselves.
  return config_.msix_enabled() || server_->armed(kMsixIndex, 0);
}

void VfioDevice::raise(u16 vector) {
  if (server_->trigger(kMsixIndex, vector) == ENOENT) pending_[vector] = true;
}

void VfioDevice::set_pin(bool asserted) {
  if (asserted && !pin_) pin_told_ = false;  // a new edge, whatever became of the last one
  pin_ = asserted;
  signal_pin();
}

void VfioDevice::signal_pin() {
  if (!pin_ || pin_told_ || config_.pin_disabled() || message_signalled()) return;
  pin_told_ = server_->trigger(kPinIndex, 0) == 0;
}

// An eventfd carries no value, so it stands for a doorbell only while its value is in memory. The
// reserved doorbell is offered always, for clients that ask again only where there was something
// at first. One write to any trapped register later they know: the guest's driver reads the
// completion of Doorbell Buffer Config and writes the admin queue's head, or resets by CC.
std::vector<vfio_user::ServerIoFd> VfioDevice::io_fds(std::uint32_t region) {
  std::vector<vfio_user::ServerIoFd> ranges;
  if (region != 0 || !wake_) return ranges;
  ranges.push_back({kReservedDoorbell, 4, wake_.get()});
  if (!controller_.shadowed()) return ranges;
  for (u16 id = 1; id < kMaxQueues; ++id) {
    if (controller_.has_sq(id)) ranges.push_back({reg::doorbells + 8u * id, 4, wake_.get()});
  }
  return ranges;
}

void VfioDevice::take_wake() {
  eventfd_t rings = 0;
  if (::eventfd_read(wake_.get(), &rings) == 0) controller_.count_wake();
}

void VfioDevice::irqs_armed(std::uint32_t index) {
  if (index == kPinIndex) {
    pin_told_ = false;
    signal_pin();
  }
  if (index != kMsixIndex) return;
  for (u32 i = 0; i < pending_.size(); ++i) {
    if ((pending_[i] || owed_[i]) && server_->armed(kMsixIndex, i)) {
      pending_[i] = owed_[i] = false;
      raise(static_cast<u16>(i));
    }
  }
}

void VfioDevice::irq_unmasked(std::uint32_t index, std::uint32_t, std::uint32_t) {
  if (index != kPinIndex) return;
  // The guest has perhaps just consumed the entries: see its doorbells first.
  pin_told_ = false;
  controller_.turn();
  set_pin(controller_.pin_level());
}

}  // namespace outboard::nvme
