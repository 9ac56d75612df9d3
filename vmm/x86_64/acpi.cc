// The firmware tables of the x86-64 machine: what boot/acpi.h needs to know, from layout.h.

#include "boot/acpi.h"

#include "devices/power.h"
#include "vmm/arch.h"
#include "vmm/x86_64/layout.h"

namespace outboard::vmm::arch {

static_assert(boot::kSleepTypeOff == devices::PowerBlock::kSleepTypeOff);

FirmwareTables firmware_tables(const FirmwareDescription& description, const MemoryLayout& layout) {
  using namespace x86_64;
  boot::AcpiDescription acpi;
  for (std::uint32_t i = 0; i < description.vcpus; ++i) acpi.apic_ids.push_back(i);
  acpi.local_apic_address = kLocalApicAddress;
  acpi.ioapic_address = kIoapicAddress;
  acpi.ioapic_id = 0;
  acpi.ecam_base = layout.ecam_base;
  acpi.last_bus = 0;
  acpi.mmio32 = {layout.mmio32.base, layout.mmio32.size};
  acpi.mmio64 = {layout.mmio64.base, layout.mmio64.size};
  acpi.pio = {layout.pio.base, layout.pio.size};
  for (std::uint32_t slot = 1; slot <= kIntxSlots; ++slot) {
    acpi.pci_irqs.push_back(
        {.slot = static_cast<std::uint8_t>(slot), .pin = 0, .gsi = *intx_gsi(slot)});
  }
  acpi.uart = boot::AcpiDescription::Uart{.port = kUartPort, .gsi = kUartGsi};
  acpi.ged_gsi = kPowerButtonGsi;
  acpi.sleep_control_port = kPowerPort + devices::PowerBlock::kSleepControl;
  acpi.sleep_status_port = kPowerPort + devices::PowerBlock::kSleepStatus;
  acpi.reset_port = kPowerPort + devices::PowerBlock::kReset;
  acpi.reset_value = devices::PowerBlock::kResetValue;

  auto built = boot::build_acpi(acpi, kAcpiBase);
  return {.base = kAcpiBase,
          .root = built.rsdp,
          .bytes = std::move(built.bytes),
          .tables = std::move(built.tables)};
}

}  // namespace outboard::vmm::arch
