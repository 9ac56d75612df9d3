#include "devices/bar_allocator.h"

namespace outboard::devices {

BarAllocator::BarAllocator(AddressWindow mmio32, AddressWindow mmio64, AddressWindow pio)
    : mmio32_{mmio32}, mmio64_{mmio64}, pio_{pio} {}

std::optional<std::uint64_t> BarAllocator::Cursor::take(std::uint64_t size) {
  if (size == 0 || size > window.size) return std::nullopt;
  const std::uint64_t mask = size - 1;
  const std::uint64_t at = window.base + used;
  const std::uint64_t skip = (size - (at & mask)) & mask;
  if (skip > window.size - used || size > window.size - used - skip) return std::nullopt;
  used += skip + size;
  return at + skip;
}

std::optional<std::uint64_t> BarAllocator::take_memory(std::uint64_t size, bool may_be_64bit) {
  if (may_be_64bit) {
    if (const auto at = mmio64_.take(size)) return at;
  }
  return mmio32_.take(size);
}

std::optional<std::uint64_t> BarAllocator::take_ports(std::uint64_t size) {
  return pio_.take(size);
}

}  // namespace outboard::devices
