#include "vmm/memslots.h"

#include <cerrno>
#include <cstring>

#include <fmt/core.h>

#include "devices/host_page.h"
#include "vmm/log.h"

namespace outboard::vmm {

void Memslots::reserve(devices::AddressWindow window) {
  const std::lock_guard lock(mutex_);
  reserved_.push_back(window);
}

Result<void> Memslots::add_ram(const GuestMemory& memory) {
  const std::lock_guard lock(mutex_);
  for (const RamWindow& window : memory.windows()) {
    auto slot = map_locked(window.address, memory.bytes(window), true);
    if (!slot) {
      return failure(ExitStatus::memory,
                     "cannot give guest memory to KVM: " + slot.error().message + "; lower memory");
    }
  }
  return {};
}

devices::Result<devices::SlotId> Memslots::map(devices::GuestAddress at, std::span<std::byte> host,
                                               bool writable) {
  const std::lock_guard lock(mutex_);
  return map_locked(devices::raw(at), host, writable);
}

devices::Result<devices::SlotId> Memslots::map_locked(std::uint64_t address,
                                                      std::span<std::byte> host, bool writable) {
  const std::uint64_t size = host.size();
  const std::uint64_t page = devices::host_page();
  const bool aligned = address % page == 0 && size % page == 0 &&
                       reinterpret_cast<std::uintptr_t>(host.data()) % page == 0;
  if (!aligned || size == 0 || address + size < address) {
    return devices::failure(
        fmt::format("a slot of {:#x} bytes at {:#x} is not made of whole pages", size, address),
        EINVAL);
  }
  for (const auto& [number, range] : ranges_) {
    if (address < range.address + range.size && range.address < address + size) {
      return devices::failure(
          fmt::format("pages at {:#x}+{:#x} would cover guest memory or pages at {:#x}+{:#x}",
                      address, size, range.address, range.size),
          EEXIST);
    }
  }
  for (const devices::AddressWindow& window : reserved_) {
    if (address < window.end() && window.base < address + size) {
      return devices::failure(
          fmt::format("pages at {:#x}+{:#x} would cover the machine's own {:#x}+{:#x}", address,
                      size, window.base, window.size),
          EEXIST);
    }
  }
  std::uint32_t number = next_;
  if (!free_.empty()) {
    number = free_.back();
  } else if (next_ >= limit_) {
    return devices::failure(fmt::format("KVM has no more than {} memslots", limit_), ENOSPC);
  }
  const int result = vm_.set_memory(number, address, host.data(), size, writable);
  if (result < 0) {
    return devices::failure(
        fmt::format("KVM refuses pages at {:#x}+{:#x}: {}", address, size, std::strerror(-result)),
        -result);
  }
  if (!free_.empty()) {
    free_.pop_back();
  } else {
    ++next_;
  }
  ranges_.emplace(number, Range{address, size});
  return devices::SlotId{number};
}

void Memslots::unmap(devices::SlotId slot) {
  const std::lock_guard lock(mutex_);
  const auto number = static_cast<std::uint32_t>(slot);
  const auto found = ranges_.find(number);
  if (found == ranges_.end()) return;
  const int result = vm_.set_memory(number, found->second.address, nullptr, 0, true);
  if (result < 0) {
    log::error("KVM refuses to take back the pages at {:#x}: {}", found->second.address,
               std::strerror(-result));
    return;  // the range stays taken: nothing else may be put there
  }
  ranges_.erase(found);
  free_.push_back(number);
}

std::size_t Memslots::used() const {
  const std::lock_guard lock(mutex_);
  return ranges_.size();
}

}  // namespace outboard::vmm
