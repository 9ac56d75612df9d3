#include "vmm/aarch64/layout.h"

#include <algorithm>

#include <fmt/core.h>

namespace outboard::vmm::aarch64 {

using boot::MemoryRange;

static_assert(kRedistributors + kMaxVcpus * kRedistributorSize <= kUart);

std::vector<RamWindow> ram_windows(std::uint64_t memory) {
  return {{.address = kRam, .size = memory, .file_offset = 0}};
}

Result<arch::MemoryLayout> memory_layout(std::uint64_t memory, unsigned address_bits) {
  arch::MemoryLayout layout;
  layout.ram = ram_windows(memory);
  const std::uint64_t top = kRam + memory;
  const std::uint64_t limit = std::uint64_t{1} << address_bits;
  const std::uint64_t base =
      std::max(kMmio64Floor, (top + kMmio64Alignment - 1) / kMmio64Alignment * kMmio64Alignment);
  if (top > limit || base > limit || limit - base < kMmio64MinSize) {
    return failure(ExitStatus::memory,
                   fmt::format("memory of {} MiB does not fit the guest's {} address bits beside a "
                               "64-bit PCI window; lower memory",
                               memory / kMiB, address_bits));
  }
  layout.mmio32 = {kMmio32, kMmio32Size};
  layout.mmio64 = {base, std::min(kMmio64MaxSize, limit - base)};
  layout.pio = {kFirstIoBar, kPortWindowSize - kFirstIoBar};
  layout.ecam_base = kEcam;
  layout.reserved = {{kDistributor, kMmio32 - kDistributor}};
  layout.map = {
      {kEcam, kEcamSize, MemoryRange::Kind::reserved},
      {kRam, memory, MemoryRange::Kind::ram},
  };
  return layout;
}

arch::Wiring wiring() {
  using devices::Space;
  return {.uart = {Space::mmio, kUart},
          .uart_gsi = kUartGsi,
          .power = {Space::mmio, kPower},
          .power_button_gsi = kPowerKeyGsi,
          .config_ports = std::nullopt};
}

std::optional<std::uint32_t> intx_gsi(std::uint32_t slot) {
  if (slot == 0 || slot > kIntxSlots) return std::nullopt;
  return kIntxGsiBase + slot - 1;
}

std::vector<kvm_irq_routing_entry> fixed_routes() {
  std::vector<kvm_irq_routing_entry> routes;
  for (std::uint32_t pin = 0; pin < kPins; ++pin) {
    kvm_irq_routing_entry entry{};
    entry.gsi = pin;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip.irqchip = 0;  // the only one
    entry.u.irqchip.pin = pin;
    routes.push_back(entry);
  }
  return routes;
}

}  // namespace outboard::vmm::aarch64
