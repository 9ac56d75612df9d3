#include "vmm/interrupts.h"

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include <fmt/core.h>

#include "vmm/kvm.h"
#include "vmm/kvm_abi.h"
#include "vmm/log.h"

namespace outboard::vmm {

MsiRoutes::MsiRoutes(const Vm& vm, std::vector<kvm_irq_routing_entry> fixed,
                     std::uint32_t first_msi, std::uint32_t limit)
    : vm_(vm),
      fixed_(std::move(fixed)),
      first_msi_(first_msi),
      limit_(limit),
      need_requester_(vm.capability(KVM_CAP_MSI_DEVID) > 0) {}

int MsiRoutes::push(const Routes& routes) {
  const std::size_t count = fixed_.size() + routes.size();
  static_assert(sizeof(kvm_irq_routing_entry) % 8 == 0);
  const std::size_t bytes = sizeof(abi::CountedHeader) + count * sizeof(kvm_irq_routing_entry);
  std::vector<std::uint64_t> storage(bytes / 8);
  const abi::CountedHeader header{static_cast<std::uint32_t>(count), 0};
  auto* at = reinterpret_cast<std::byte*>(storage.data());
  std::memcpy(at, &header, sizeof(header));
  at += sizeof(header);
  for (const kvm_irq_routing_entry& entry : fixed_) {
    std::memcpy(at, &entry, sizeof(entry));
    at += sizeof(entry);
  }
  for (const auto& [gsi, route] : routes) {
    const devices::MsiMessage& message = route.message;
    kvm_irq_routing_entry entry{};
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = static_cast<std::uint32_t>(message.address);
    entry.u.msi.address_hi = static_cast<std::uint32_t>(message.address >> 32);
    entry.u.msi.data = message.data;
    if (need_requester_) {
      entry.flags = KVM_MSI_VALID_DEVID;
      entry.u.msi.devid = route.requester;
    }
    std::memcpy(at, &entry, sizeof(entry));
    at += sizeof(entry);
  }
  pushes_.fetch_add(1, std::memory_order_relaxed);
  return kvm_ioctl(vm_.fd(), abi::kSetGsiRouting, storage.data());
}

Result<void> MsiRoutes::install() {
  const std::lock_guard lock(mutex_);
  if (const int result = push(wanted_); result < 0) {
    return failure(ExitStatus::no_kvm, fmt::format("KVM refuses the interrupt routing table: {}",
                                                   std::strerror(-result)));
  }
  pushed_ = wanted_;
  return {};
}

devices::Result<std::uint32_t> MsiRoutes::allocate_gsi() {
  const std::lock_guard lock(mutex_);
  if (fixed_.size() + allocated_.size() >= limit_) {
    return devices::failure(
        fmt::format("all {} interrupt routes of KVM are in use; lower max_vectors", limit_),
        ENOSPC);
  }
  std::uint32_t gsi = first_msi_;
  for (const std::uint32_t taken : allocated_) {
    if (taken != gsi) break;
    ++gsi;
  }
  allocated_.insert(gsi);
  return gsi;
}

void MsiRoutes::free_gsi(std::uint32_t gsi) {
  const std::lock_guard lock(mutex_);
  allocated_.erase(gsi);
  wanted_.erase(gsi);  // nothing is connected to it: KVM learns it with the next push
}

devices::Result<void> MsiRoutes::set_routes(std::span<const Route> routes) {
  const std::lock_guard lock(mutex_);
  auto wanted = wanted_;
  for (const Route& route : routes) {
    if (!allocated_.contains(route.gsi)) {
      return devices::failure(fmt::format("GSI {} is not allocated", route.gsi), EINVAL);
    }
    wanted[route.gsi] = route;
  }
  if (wanted != pushed_) {
    if (const int result = push(wanted); result < 0) {
      return devices::failure(fmt::format("KVM refuses {} interrupt routes: {}",
                                          fixed_.size() + wanted.size(), std::strerror(-result)),
                              -result);
    }
    pushed_ = wanted;
  }
  wanted_ = std::move(wanted);
  return {};
}

devices::Result<void> MsiRoutes::connect(int eventfd, std::uint32_t gsi) {
  if (const int result = vm_.assign_irqfd(eventfd, gsi, -1); result < 0) {
    return devices::failure(
        fmt::format("KVM refuses an irqfd for GSI {}: {}", gsi, std::strerror(-result)), -result);
  }
  return {};
}

void MsiRoutes::disconnect(int eventfd, std::uint32_t gsi) {
  if (const int result = vm_.deassign_irqfd(eventfd, gsi); result < 0) {
    log::error("KVM refuses to disconnect GSI {}: {}", gsi, std::strerror(-result));
  }
}

devices::Result<void> IntxLines::connect(std::uint32_t gsi, int trigger_fd, int resample_fd) {
  if (const int result = vm_.assign_irqfd(trigger_fd, gsi, resample_fd); result < 0) {
    return devices::failure(
        fmt::format("KVM refuses a resampled irqfd for GSI {}: {}", gsi, std::strerror(-result)),
        -result);
  }
  return {};
}

void IntxLines::disconnect(std::uint32_t gsi, int trigger_fd) {
  if (const int result = vm_.deassign_irqfd(trigger_fd, gsi); result < 0) {
    log::error("KVM refuses to disconnect GSI {}: {}", gsi, std::strerror(-result));
  }
}

void GsiLine::set(bool level) {
  if (level_.exchange(level) == level) return;
  if (const int result = vm_.set_line(gsi_, level); result < 0) {
    log::error("KVM refuses to drive GSI {}: {}", gsi_, std::strerror(-result));
  }
}

}  // namespace outboard::vmm
