// The ACPI tables of the x86-64 machine: hardware-reduced ACPI 6.3, so no PIT, PIC, i8042, CMOS RTC
// or VGA for the guest to probe.
//
// Pure: a description in, bytes out. The caller copies `bytes` to guest-physical `base` and hands
// `rsdp` to place_boot_data(). For the guest to accept ECAM without a remark the caller's memory
// map marks the ECAM window reserved too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace outboard::boot {

struct AcpiDescription {
  struct Window {
    std::uint64_t base = 0;
    std::uint64_t size = 0;  // bytes; 0: no such window
  };
  struct PciIrq {
    std::uint8_t slot = 0;
    std::uint8_t pin = 0;  // 0 = INTA … 3 = INTD
    std::uint32_t gsi = 0;
  };
  struct Uart {
    std::uint16_t port = 0x3f8;
    std::uint32_t gsi = 4;  // edge-triggered, active high
  };

  std::vector<std::uint32_t> apic_ids;  // one per vCPU; ids of 255 and above become x2APIC entries
  std::uint32_t local_apic_address = 0xfee0'0000;
  std::uint32_t ioapic_address = 0xfec0'0000;
  std::uint32_t ioapic_id = 0;

  std::uint64_t ecam_base = 0;  // of bus 0; 1 MiB per bus
  std::uint8_t last_bus = 0;
  Window mmio32;                 // below 4 GiB
  Window mmio64;                 // anywhere
  Window pio{0x1000, 0xf000};    // ports that I/O BARs may use
  std::vector<PciIrq> pci_irqs;  // level-triggered

  std::optional<Uart> uart;
  std::uint32_t ged_gsi = 0;  // edge-triggered, active high: the power button was pressed
  std::uint16_t sleep_control_port = 0;
  std::uint16_t sleep_status_port = 0;
  std::uint16_t reset_port = 0;
  std::uint8_t reset_value = 0;
};

// The SLP_TYP of \_S5: power off is a write of kSleepTypeOff << 2 | SLP_EN (bit 5) to the sleep
// control port (ACPI 6.3 §4.8.3.7).
inline constexpr std::uint8_t kSleepTypeOff = 5;

struct NamedTable {
  std::string name;  // "RSDP", "XSDT", "FACP", "APIC", "MCFG", "DSDT"
  std::size_t offset = 0;
  std::size_t size = 0;  // bytes [offset, offset + size) of AcpiTables::bytes
};

struct AcpiTables {
  std::uint64_t rsdp = 0;          // guest-physical
  std::vector<std::byte> bytes;    // to be placed at `base`
  std::vector<NamedTable> tables;  // in the order of their offsets
};

// `base`: guest-physical, a multiple of 16, below 4 GiB.
[[nodiscard]] AcpiTables build_acpi(const AcpiDescription& description, std::uint64_t base);

}  // namespace outboard::boot
