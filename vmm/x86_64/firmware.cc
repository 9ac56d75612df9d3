// What boot/acpi.h needs to know, from layout.h.

#include "vmm/x86_64/firmware.h"

#include <span>
#include <utility>

#include "devices/power.h"
#include "vmm/x86_64/layout.h"

namespace outboard::vmm::x86_64 {
namespace {

// Linux with hardware-reduced ACPI reboots by EFI, and where there is none it goes to real mode and
// jumps to the firmware's reset vector (arch/x86/kernel/reboot.c). There is no firmware here, so
// its vector writes the reset register:  mov dx, PORT; mov al, VALUE; out dx, al; 1: hlt; jmp 1b
std::vector<std::byte> reset_code() {
  constexpr std::uint16_t kPort = kPowerPort + devices::PowerBlock::kReset;
  constexpr std::uint8_t kCode[] = {
      0xba, kPort & 0xff, kPort >> 8, 0xb0, devices::PowerBlock::kResetValue,
      0xee, 0xf4,         0xeb,       0xfd,
  };
  static_assert(kResetVector + sizeof(kCode) <= kLegacyHoleEnd);
  const auto bytes = std::as_bytes(std::span(kCode));
  return {bytes.begin(), bytes.end()};
}

}  // namespace

static_assert(boot::kSleepTypeOff == devices::PowerBlock::kSleepTypeOff);

FirmwareTables firmware_tables(std::uint32_t vcpus, const arch::MemoryLayout& layout) {
  boot::AcpiDescription acpi;
  for (std::uint32_t i = 0; i < vcpus; ++i) acpi.apic_ids.push_back(i);
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
        {.slot = static_cast<std::uint8_t>(slot), .pin = 0, .gsi = *arch::intx_gsi(slot)});
  }
  acpi.uart = boot::AcpiDescription::Uart{.port = kUartPort, .gsi = kUartGsi};
  acpi.ged_gsi = kPowerButtonGsi;
  acpi.sleep_control_port = kPowerPort + devices::PowerBlock::kSleepControl;
  acpi.sleep_status_port = kPowerPort + devices::PowerBlock::kSleepStatus;
  acpi.reset_port = kPowerPort + devices::PowerBlock::kReset;
  acpi.reset_value = devices::PowerBlock::kResetValue;

  auto built = boot::build_acpi(acpi, kAcpiBase);
  return {.base = kAcpiBase,
          .rsdp = built.rsdp,
          .bytes = std::move(built.bytes),
          .tables = std::move(built.tables),
          .reset_vector = kResetVector,
          .reset_code = reset_code()};
}

}  // namespace outboard::vmm::x86_64
