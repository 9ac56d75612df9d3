#include "boot/fdt.h"

#include <algorithm>
#include <string_view>

#include "boot/tree_writer.h"

namespace outboard::boot {
namespace {

constexpr std::uint64_t kEcamPerBus = std::uint64_t{1} << 20;

// phys.hi of a PCI address (IEEE 1275 PCI binding §2.2.1.1): space codes of `ranges`, and where the
// device number of `interrupt-map` lies.
constexpr std::uint32_t kPciIo = 0x0100'0000;
constexpr std::uint32_t kPciMemory32 = 0x0200'0000;
constexpr std::uint32_t kPciMemory64 =
    0x4300'0000;  // prefetchable: Linux warns of others this large
constexpr std::uint32_t kPciDeviceShift = 11;
constexpr std::uint32_t kPciDeviceMask = 0x1f << kPciDeviceShift;

// Interrupt specifiers of the GIC (Linux bindings/interrupt-controller/arm,gic-v3.yaml).
constexpr std::uint32_t kSpi = 0;
constexpr std::uint32_t kPpi = 1;
constexpr std::uint32_t kEdgeRising = 1;
constexpr std::uint32_t kLevelHigh = 4;

constexpr std::uint32_t kGicHandle = 1;
constexpr std::uint32_t kItsHandle = 2;

constexpr std::uint32_t kKeyPower = 116;  // Linux input-event-codes.h

using Window = FdtDescription::Window;

std::vector<std::uint32_t> reg_of(const Window& window) {
  return {high_cell(window.base), low_cell(window.base), high_cell(window.size),
          low_cell(window.size)};
}

void write_cpus(TreeWriter& tree, const FdtDescription& description) {
  // One cell is enough for ids of 32 bits; arm64's Aff3 needs two.
  const bool wide =
      std::ranges::any_of(description.cpu_ids, [](auto id) { return high_cell(id) != 0; });
  tree.begin("cpus");
  tree.u32("#address-cells", wide ? 2 : 1);
  tree.u32("#size-cells", 0);
  for (const std::uint64_t id : description.cpu_ids) {
    tree.begin("cpu", id);
    tree.string("device_type", "cpu");
    if (!description.cpu_compatible.empty()) tree.string("compatible", description.cpu_compatible);
    tree.cells("reg", wide ? std::vector{high_cell(id), low_cell(id)} : std::vector{low_cell(id)});
    if (description.arm) tree.string("enable-method", "psci");
    tree.end();
  }
  tree.end();
}

void write_memory(TreeWriter& tree, const MemoryRange& range) {
  tree.begin("memory", range.base);
  tree.string("device_type", "memory");
  tree.cells("reg", reg_of({range.base, range.size}));
  tree.end();
}

void write_chosen(TreeWriter& tree, const FdtDescription& description) {
  tree.begin("chosen");
  tree.string("bootargs", description.command_line);
  if (description.arm && description.arm->uart) tree.string("stdout-path", "serial0");
  if (description.initrd) {
    tree.u64("linux,initrd-start", description.initrd->base);
    tree.u64("linux,initrd-end", description.initrd->base + description.initrd->size);
  }
  if (description.seeds) {
    tree.u64("kaslr-seed", description.seeds->kaslr);
    tree.bytes("rng-seed", description.seeds->rng);
  }
  tree.end();
}

// From a device's pin to the GIC's (Devicetree Specification §2.4.3).
void write_pci_interrupts(TreeWriter& tree, const std::vector<FdtDescription::PciIrq>& irqs) {
  std::vector<std::uint32_t> map;
  for (const FdtDescription::PciIrq& irq : irqs) {
    map.insert(map.end(), {std::uint32_t{irq.slot} << kPciDeviceShift & kPciDeviceMask, 0, 0,
                           irq.pin + 1U, kGicHandle, 0, 0, kSpi, irq.spi, kLevelHigh});
  }
  if (map.empty()) return;
  tree.u32("#interrupt-cells", 1);
  tree.cells("interrupt-map-mask", {kPciDeviceMask, 0, 0, 7});
  tree.cells("interrupt-map", map);
}

// Linux Documentation/devicetree/bindings/pci/host-generic-pci.yaml.
void write_pci(TreeWriter& tree, const FdtDescription::Pci& pci, bool gic) {
  std::vector<std::uint32_t> ranges;
  const auto add = [&](std::uint32_t space, std::uint64_t bus_address, const Window& window) {
    if (window.size == 0) return;
    ranges.insert(ranges.end(),
                  {space, high_cell(bus_address), low_cell(bus_address), high_cell(window.base),
                   low_cell(window.base), high_cell(window.size), low_cell(window.size)});
  };
  add(kPciIo, 0, pci.pio);
  add(kPciMemory32, pci.mmio32.base, pci.mmio32);
  add(kPciMemory64, pci.mmio64.base, pci.mmio64);
  const std::uint64_t ecam_size = (pci.last_bus + std::uint64_t{1}) * kEcamPerBus;

  tree.begin("pcie", pci.ecam_base);
  tree.string("compatible", "pci-host-ecam-generic");
  tree.string("device_type", "pci");
  tree.u32("#address-cells", 3);
  tree.u32("#size-cells", 2);
  tree.cells("reg", reg_of({pci.ecam_base, ecam_size}));
  tree.cells("bus-range", {0, pci.last_bus});
  tree.u32("linux,pci-domain", 0);
  tree.cells("ranges", ranges);
  tree.flag("dma-coherent");
  if (gic) {
    // Every requester ID is its own device id (bindings/pci/pci-msi.txt).
    tree.cells("msi-map", {0, kItsHandle, 0, 0x1'0000});
    write_pci_interrupts(tree, pci.irqs);
  }
  tree.end();
}

void write_gic(TreeWriter& tree, const FdtDescription::Arm& arm) {
  tree.begin("interrupt-controller", arm.distributor.base);
  tree.string("compatible", "arm,gic-v3");
  tree.flag("interrupt-controller");
  tree.u32("#interrupt-cells", 3);
  tree.u32("#address-cells", 2);
  tree.u32("#size-cells", 2);
  tree.flag("ranges");
  auto reg = reg_of(arm.distributor);
  for (const std::uint32_t cell : reg_of(arm.redistributors)) reg.push_back(cell);
  tree.cells("reg", reg);
  tree.phandle(kGicHandle);
  tree.begin("msi-controller", arm.its.base);
  tree.string("compatible", "arm,gic-v3-its");
  tree.flag("msi-controller");
  tree.u32("#msi-cells", 1);
  tree.cells("reg", reg_of(arm.its));
  tree.phandle(kItsHandle);
  tree.end();
  tree.end();
}

// bindings/arm/psci.yaml and bindings/timer/arm,arch_timer.yaml.
void write_psci_and_timer(TreeWriter& tree) {
  tree.begin("psci");
  tree.strings("compatible", {"arm,psci-1.0", "arm,psci-0.2"});
  tree.string("method", "hvc");
  tree.end();
  tree.begin("timer");
  tree.string("compatible", "arm,armv8-timer");
  tree.flag("always-on");
  // Secure and non-secure physical, virtual, hypervisor's.
  tree.cells("interrupts", {kPpi, 13, kLevelHigh, kPpi, 14, kLevelHigh, kPpi, 11, kLevelHigh, kPpi,
                            10, kLevelHigh});
  tree.end();
}

void write_uart(TreeWriter& tree, const FdtDescription::Uart& uart) {
  tree.begin("aliases");
  tree.string("serial0", "/" + unit_name("serial", uart.registers.base));
  tree.end();
  tree.begin("serial", uart.registers.base);
  tree.string("compatible", "ns16550a");
  tree.cells("reg", reg_of(uart.registers));
  tree.u32("reg-shift", 0);
  tree.u32("reg-io-width", 1);
  tree.u32("clock-frequency", uart.clock);
  tree.cells("interrupts", {kSpi, uart.spi, kLevelHigh});
  tree.end();
}

// bindings/input/gpio-keys.yaml: a key that has an interrupt and no GPIO is let go by itself.
void write_power_key(TreeWriter& tree, std::uint32_t spi) {
  tree.begin("gpio-keys");
  tree.string("compatible", "gpio-keys");
  tree.begin("power");
  tree.string("label", "Power Button");
  tree.u32("linux,code", kKeyPower);
  tree.cells("interrupts", {kSpi, spi, kEdgeRising});
  tree.end();
  tree.end();
}

}  // namespace

Result<std::vector<std::byte>> build_fdt(const FdtDescription& description) {
  if (description.command_line.find('\0') != std::string::npos) {
    return fail("the command line has a zero byte in it; remove it");
  }
  TreeWriter tree;
  tree.begin("");
  tree.u32("#address-cells", 2);
  tree.u32("#size-cells", 2);
  tree.string("model", description.model);
  tree.strings("compatible", description.compatible);
  if (description.arm) tree.u32("interrupt-parent", kGicHandle);
  write_chosen(tree, description);
  for (const MemoryRange& range : description.memory) {
    if (range.kind == MemoryRange::Kind::ram) write_memory(tree, range);
  }
  write_cpus(tree, description);
  if (const auto& arm = description.arm) {
    write_psci_and_timer(tree);
    write_gic(tree, *arm);
    if (arm->uart) write_uart(tree, *arm->uart);
    if (arm->power_key_spi) write_power_key(tree, *arm->power_key_spi);
  }
  if (description.pci) write_pci(tree, *description.pci, description.arm.has_value());
  tree.end();
  return tree.finish();
}

}  // namespace outboard::boot
