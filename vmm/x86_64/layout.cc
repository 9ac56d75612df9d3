#include "vmm/x86_64/layout.h"

#include <algorithm>

#include <fmt/core.h>

#include "vmm/arch.h"

namespace outboard::vmm::arch {

using boot::MemoryRange;

Wiring wiring() {
  using devices::Space;
  return {.uart = {Space::pio, x86_64::kUartPort},
          .uart_gsi = x86_64::kUartGsi,
          .power = {Space::pio, x86_64::kPowerPort},
          .power_button_gsi = x86_64::kPowerButtonGsi,
          .config_ports = Place{Space::pio, x86_64::kConfigPorts}};
}

std::optional<std::uint64_t> port_window() {
  return std::nullopt;
}

std::optional<std::uint32_t> intx_gsi(std::uint32_t slot) {
  if (slot == 0 || slot > x86_64::kIntxSlots) return std::nullopt;
  return x86_64::kIntxGsiBase + slot - 1;
}

std::vector<RamWindow> ram_windows(std::uint64_t memory) {
  const std::uint64_t low = std::min(memory, x86_64::kLowMemoryEnd);
  const std::uint64_t high = memory - low;
  std::vector<RamWindow> windows;
  windows.push_back({.address = 0, .size = low, .file_offset = 0});
  if (high != 0) {
    windows.push_back({.address = x86_64::kHighMemoryBase, .size = high, .file_offset = low});
  }
  return windows;
}

Result<MemoryLayout> memory_layout(std::uint64_t memory, unsigned physical_bits) {
  using namespace x86_64;
  MemoryLayout layout;
  layout.ram = ram_windows(memory);
  const std::uint64_t low = layout.ram.front().size;
  const std::uint64_t high = memory - low;
  const std::uint64_t top = kHighMemoryBase + high;
  const std::uint64_t limit = std::uint64_t{1} << physical_bits;
  const std::uint64_t base = (top + kMmio64Alignment - 1) / kMmio64Alignment * kMmio64Alignment;
  if (top > limit || base > limit || limit - base < kMmio64MinSize) {
    return failure(ExitStatus::memory,
                   fmt::format("memory of {} MiB does not fit the guest's {} address bits beside a "
                               "64-bit PCI window; lower memory",
                               memory / kMiB, physical_bits));
  }
  layout.mmio32 = {kMmio32Base, kMmio32Size};
  layout.mmio64 = {base, std::min(kMmio64MaxSize, limit - base)};
  layout.pio = {kPioBase, kPioSize};
  layout.ecam_base = kEcamBase;
  layout.reserved = {{kEcamBase, kEcamSize}, {kInterruptControllers, kInterruptControllersSize}};

  layout.map = {
      {0, kLegacyHoleBase, MemoryRange::Kind::ram},
      {kLegacyHoleBase, kLegacyHoleEnd - kLegacyHoleBase, MemoryRange::Kind::reserved},
      {kLegacyHoleEnd, low - kLegacyHoleEnd, MemoryRange::Kind::ram},
      {kEcamBase, kEcamSize, MemoryRange::Kind::reserved},
  };
  if (high != 0) layout.map.push_back({kHighMemoryBase, high, MemoryRange::Kind::ram});
  return layout;
}

}  // namespace outboard::vmm::arch
