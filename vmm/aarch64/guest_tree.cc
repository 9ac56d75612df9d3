#include "vmm/aarch64/guest_tree.h"

#include <fmt/core.h>

#include "boot/arm64_start.h"
#include "vmm/aarch64/layout.h"

namespace outboard::vmm::aarch64 {

Result<std::vector<std::byte>> guest_tree(const arch::GuestDescription& description,
                                          const arch::MemoryLayout& layout,
                                          const std::optional<boot::FdtDescription::Seeds>& seeds) {
  if (description.command_line.size() > boot::kArm64LongestCommandLine) {
    return failure(ExitStatus::boot_image,
                   fmt::format("the kernel takes a command line of at most {} bytes, and this one "
                               "has {}; shorten it",
                               boot::kArm64LongestCommandLine, description.command_line.size()));
  }
  boot::FdtDescription fdt;
  fdt.cpu_compatible = "arm,armv8";
  for (std::uint32_t i = 0; i < description.vcpus; ++i) fdt.cpu_ids.push_back(affinity(i));
  fdt.memory = layout.map;
  fdt.command_line = description.command_line;
  fdt.seeds = seeds;
  if (description.initrd_size != 0) {
    const RamWindow& ram = layout.ram.front();
    const auto base = boot::arm64_initrd_address(ram.address, ram.size, description.initrd_size);
    if (!base) {
      return failure(ExitStatus::boot_image,
                     fmt::format("the initrd has {} MiB and the machine {} MiB; raise memory",
                                 description.initrd_size / kMiB, ram.size / kMiB));
    }
    fdt.initrd = boot::FdtDescription::Initrd{*base, description.initrd_size};
  }

  boot::FdtDescription::Pci pci;
  pci.ecam_base = layout.ecam_base;
  pci.pio = {kPortWindow, kPortWindowSize};
  pci.mmio32 = {layout.mmio32.base, layout.mmio32.size};
  pci.mmio64 = {layout.mmio64.base, layout.mmio64.size};
  for (std::uint32_t slot = 1; slot <= kIntxSlots; ++slot) {
    pci.irqs.push_back({.slot = static_cast<std::uint8_t>(slot), .pin = 0, .spi = *intx_gsi(slot)});
  }
  fdt.pci = std::move(pci);
  fdt.arm = boot::FdtDescription::Arm{
      .distributor = {kDistributor, kDistributorSize},
      .redistributors = {kRedistributors, description.vcpus * kRedistributorSize},
      .its = {kIts, kItsSize},
      .uart = boot::FdtDescription::Uart{.registers = {kUart, kUartSize}, .spi = kUartGsi},
      .power_key_spi = kPowerKeyGsi};
  auto tree = boot::build_fdt(fdt);
  if (!tree) return failure(ExitStatus::boot_image, tree.error().message);
  return std::move(*tree);
}

}  // namespace outboard::vmm::aarch64
