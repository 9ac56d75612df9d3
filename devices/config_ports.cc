#include "devices/config_ports.h"

#include <algorithm>

#include "devices/aligned_pieces.h"

namespace outboard::devices {
namespace {

constexpr std::uint64_t kData = 4;  // CONFIG_DATA, 0xCFC
constexpr std::uint32_t kEnable = 0x80000000;
constexpr std::uint32_t kAddressBits = 0x80fffffc;  // the others are reserved, read only 0

// CONFIG_ADDRESS: 23:16 bus, 15:11 device, 10:8 function, 7:2 register.
struct Target {
  std::uint32_t device;
  std::uint32_t function;
  std::uint32_t reg;
};

Target decode(std::uint32_t address, std::uint64_t offset) {
  return {(address >> 11) & 0x1f, (address >> 8) & 0x07,
          (address & 0xfc) | (static_cast<std::uint32_t>(offset) & 3)};
}

bool selects_bus0(std::uint32_t address) {
  return (address & kEnable) != 0 && ((address >> 16) & 0xff) == 0;
}

}  // namespace

void ConfigPorts::read(std::uint64_t offset, std::span<std::byte> data) {
  std::ranges::fill(data, std::byte{0xff});
  const std::uint32_t address = address_.load(std::memory_order_relaxed);
  if (offset == 0 && data.size() == 4) return store_le(data, address);
  // Narrow accesses below 0xCFC are no configuration accesses (§3.2.2.3.2); nothing answers them.
  if (offset < kData || !selects_bus0(address)) return;
  for_aligned_pieces(offset, data, [&](std::uint64_t at, std::span<std::byte> bytes) {
    if (at >= kData + 4) return;
    const Target target = decode(address, at);
    store_le(bytes, bus0_read(slots_, target.device, target.function, target.reg,
                              static_cast<std::uint32_t>(bytes.size())));
  });
}

void ConfigPorts::write(std::uint64_t offset, std::span<const std::byte> data) {
  if (offset == 0 && data.size() == 4) {
    address_.store(static_cast<std::uint32_t>(load_le(data)) & kAddressBits,
                   std::memory_order_relaxed);
    return;
  }
  const std::uint32_t address = address_.load(std::memory_order_relaxed);
  if (offset < kData || !selects_bus0(address)) return;
  for_aligned_pieces(offset, data, [&](std::uint64_t at, std::span<const std::byte> bytes) {
    if (at >= kData + 4) return;
    const Target target = decode(address, at);
    bus0_write(slots_, target.device, target.function, target.reg,
               static_cast<std::uint32_t>(bytes.size()),
               static_cast<std::uint32_t>(load_le(bytes)));
  });
}

}  // namespace outboard::devices
