#include "devices/config_space.h"

#include <algorithm>

namespace outboard::devices {
namespace {

std::byte byte_of(std::uint32_t value, std::uint32_t index) {
  return static_cast<std::byte>(value >> (8 * index));
}

}  // namespace

ConfigSpace::ConfigSpace(std::size_t size) : bytes_(size), writable_(size), clearable_(size) {}

bool ConfigSpace::holds(std::uint32_t reg, std::uint32_t size) const {
  return size <= 4 && reg <= bytes_.size() && size <= bytes_.size() - reg;
}

std::uint32_t ConfigSpace::read(std::uint32_t reg, std::uint32_t size) const {
  if (!holds(reg, size)) return 0;
  std::uint32_t value = 0;
  for (std::uint32_t i = 0; i < size; ++i) {
    value |= std::to_integer<std::uint32_t>(bytes_[reg + i]) << (8 * i);
  }
  return value;
}

void ConfigSpace::write(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
  if (!holds(reg, size)) return;
  for (std::uint32_t i = 0; i < size; ++i) {
    const std::byte given = byte_of(value, i);
    std::byte& byte = bytes_[reg + i];
    byte = (byte & ~writable_[reg + i]) | (given & writable_[reg + i]);
    byte &= ~(given & clearable_[reg + i]);
  }
}

void ConfigSpace::set(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
  if (!holds(reg, size)) return;
  for (std::uint32_t i = 0; i < size; ++i) bytes_[reg + i] = byte_of(value, i);
}

void ConfigSpace::set_bytes(std::uint32_t reg, std::span<const std::byte> bytes) {
  if (reg >= bytes_.size()) return;
  std::ranges::copy(bytes.first(std::min(bytes.size(), bytes_.size() - reg)), bytes_.begin() + reg);
}

void ConfigSpace::allow_write(std::uint32_t reg, std::uint32_t size, std::uint32_t mask) {
  if (!holds(reg, size)) return;
  for (std::uint32_t i = 0; i < size; ++i) writable_[reg + i] |= byte_of(mask, i);
}

void ConfigSpace::allow_clear(std::uint32_t reg, std::uint32_t size, std::uint32_t mask) {
  if (!holds(reg, size)) return;
  for (std::uint32_t i = 0; i < size; ++i) clearable_[reg + i] |= byte_of(mask, i);
}

}  // namespace outboard::devices
