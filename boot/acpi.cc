#include "boot/acpi.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

#include "boot/dsdt.h"

namespace outboard::boot {
namespace {

constexpr std::size_t kHeaderSize = 36;  // §5.2.6
constexpr std::size_t kLengthAt = 4;
constexpr std::size_t kChecksumAt = 9;

// A table under construction: fields are appended in the order of the specification's tables.
class Table {
 public:
  void u8(std::uint64_t value) { put(value, 1); }
  void u16(std::uint64_t value) { put(value, 2); }
  void u32(std::uint64_t value) { put(value, 4); }
  void u64(std::uint64_t value) { put(value, 8); }
  void zeros(std::size_t count) { bytes_.resize(bytes_.size() + count); }
  void text(std::string_view characters) {
    aml::append(bytes_, std::as_bytes(std::span(characters)));
  }
  void append(std::span<const std::byte> bytes) { aml::append(bytes_, bytes); }

  // Description header (§5.2.6); finish() sets its length and checksum.
  void header(std::string_view signature, std::uint8_t revision) {
    text(signature);
    u32(0);
    u8(revision);
    u8(0);
    text("OUTBRD");
    text("OUTBOARD");
    u32(1);
    text("OUTB");
    u32(1);
  }

  // Generic Address Structure (§5.2.3.2) of one 8-bit port.
  void port(std::uint16_t address) {
    constexpr std::uint8_t kSystemIo = 1;
    constexpr std::uint8_t kByteAccess = 1;
    u8(kSystemIo);
    u8(8);
    u8(0);
    u8(kByteAccess);
    u64(address);
  }

  [[nodiscard]] std::vector<std::byte> finish() && {
    const auto length = static_cast<std::uint32_t>(bytes_.size());
    std::memcpy(bytes_.data() + kLengthAt, &length, sizeof length);
    set_checksum(0, bytes_.size(), kChecksumAt);
    return std::move(bytes_);
  }

  // Makes the bytes of [first, last) add up to 0 modulo 256.
  void set_checksum(std::size_t first, std::size_t last, std::size_t at) {
    bytes_[at] = std::byte{0};
    unsigned sum = 0;
    for (std::size_t i = first; i < last; ++i) sum += std::to_integer<unsigned>(bytes_[i]);
    bytes_[at] = static_cast<std::byte>(0x100 - (sum & 0xff));
  }

  [[nodiscard]] std::vector<std::byte> take() && { return std::move(bytes_); }

 private:
  void put(std::uint64_t value, unsigned width) {
    for (unsigned i = 0; i < width; ++i) {
      bytes_.push_back(static_cast<std::byte>(value >> (8 * i)));
    }
  }

  std::vector<std::byte> bytes_;
};

// §5.2.9, revision 6.3: 276 bytes.
std::vector<std::byte> build_fadt(const AcpiDescription& description, std::uint64_t dsdt) {
  // Fixed feature flags (table 5-35).
  constexpr std::uint32_t kWbinvd = 1u << 0;
  constexpr std::uint32_t kC1OnAll = 1u << 2;
  constexpr std::uint32_t kPowerButtonIsDevice = 1u << 4;
  constexpr std::uint32_t kNoFixedSleepButton = 1u << 5;
  constexpr std::uint32_t kResetRegister = 1u << 10;
  constexpr std::uint32_t kHardwareReduced = 1u << 20;
  // IA-PC boot architecture flags (table 5-36). Not set: legacy devices, 8042; nor "MSI not
  // supported" and "no PCIe ASPM control".
  constexpr std::uint16_t kNoVga = 1u << 2;
  constexpr std::uint16_t kNoCmosRtc = 1u << 5;
  constexpr std::size_t kAddressSize = 12;  // a Generic Address Structure

  Table table;
  table.header("FACP", 6);
  table.u32(0);  // FACS: none on reduced hardware
  table.u32(dsdt);
  table.u8(0);
  table.u8(0);        // preferred profile: unspecified
  table.u16(0);       // SCI: none
  table.u32(0);       // SMI command port: none
  table.zeros(4);     // ACPI enable, disable, S4BIOS, P-state control
  table.zeros(32);    // PM1a/b event, PM1a/b control, PM2, PM timer, GPE0, GPE1 blocks: none
  table.zeros(8);     // their lengths
  table.u16(0xffff);  // C2 latency: no C2
  table.u16(0xffff);  // C3 latency: no C3
  table.zeros(4);     // flush size and stride
  table.zeros(5);     // duty offset and width, day and month alarm, century
  table.u16(kNoVga | kNoCmosRtc);
  table.u8(0);
  table.u32(kWbinvd | kC1OnAll | kPowerButtonIsDevice | kNoFixedSleepButton | kResetRegister |
            kHardwareReduced);
  table.port(description.reset_port);
  table.u8(description.reset_value);
  table.u16(0);  // ARM boot flags
  table.u8(3);   // minor version
  table.u64(0);  // 64-bit FACS
  table.u64(dsdt);
  table.zeros(8 * kAddressSize);  // 64-bit forms of the absent blocks
  table.port(description.sleep_control_port);
  table.port(description.sleep_status_port);
  table.u64(0);  // hypervisor vendor identity
  return std::move(table).finish();
}

// §5.2.12: local APICs and the IOAPIC. Flag PCAT_COMPAT clear: no 8259 to mask. No interrupt source
// overrides: GSIs are used as they are, and their trigger mode is said by each device's _CRS.
std::vector<std::byte> build_madt(const AcpiDescription& description) {
  constexpr std::uint32_t kEnabled = 1;
  constexpr std::uint32_t kFirstX2ApicId = 255;
  Table table;
  table.header("APIC", 5);
  table.u32(description.local_apic_address);
  table.u32(0);
  for (std::size_t uid = 0; uid < description.apic_ids.size(); ++uid) {
    const std::uint32_t id = description.apic_ids[uid];
    if (id < kFirstX2ApicId && uid < kFirstX2ApicId) {
      table.u8(0);  // processor local APIC
      table.u8(8);
      table.u8(uid);
      table.u8(id);
      table.u32(kEnabled);
    } else {
      table.u8(9);  // processor local x2APIC
      table.u8(16);
      table.u16(0);
      table.u32(id);
      table.u32(kEnabled);
      table.u32(uid);
    }
  }
  table.u8(1);  // I/O APIC
  table.u8(12);
  table.u8(description.ioapic_id);
  table.u8(0);
  table.u32(description.ioapic_address);
  table.u32(0);  // its first GSI
  return std::move(table).finish();
}

// PCI Firmware 3.2 §4.1.2.
std::vector<std::byte> build_mcfg(const AcpiDescription& description) {
  Table table;
  table.header("MCFG", 1);
  table.u64(0);
  table.u64(description.ecam_base);
  table.u16(0);  // segment
  table.u8(0);   // first bus
  table.u8(description.last_bus);
  table.u32(0);
  return std::move(table).finish();
}

std::vector<std::byte> build_dsdt_table(const AcpiDescription& description) {
  Table table;
  table.header("DSDT", 2);  // revision 2: integers of 64 bits
  table.append(build_dsdt(description));
  return std::move(table).finish();
}

std::vector<std::byte> build_xsdt(std::span<const std::uint64_t> addresses) {
  Table table;
  table.header("XSDT", 1);
  for (const std::uint64_t address : addresses) table.u64(address);
  return std::move(table).finish();
}

// §5.2.5.3: two checksums, of the first 20 bytes and of all 36.
std::vector<std::byte> build_rsdp(std::uint64_t xsdt) {
  constexpr std::size_t kFirstPart = 20;
  constexpr std::size_t kSize = 36;
  Table table;
  table.text("RSD PTR ");
  table.u8(0);
  table.text("OUTBRD");
  table.u8(2);
  table.u32(0);  // no RSDT
  table.u32(kSize);
  table.u64(xsdt);
  table.u8(0);
  table.zeros(3);
  table.set_checksum(0, kFirstPart, 8);
  table.set_checksum(0, kSize, 32);
  return std::move(table).take();
}

// Where each table comes to lie: one behind the other, 16-byte-aligned.
class Placement {
 public:
  Placement(AcpiTables& tables, std::uint64_t base) : tables_(tables), base_(base) {}

  std::uint64_t add(std::string name, std::span<const std::byte> table) {
    const std::size_t at = tables_.bytes.size();
    tables_.tables.push_back({std::move(name), at, table.size()});
    aml::append(tables_.bytes, table);
    tables_.bytes.resize((tables_.bytes.size() + 15) / 16 * 16);
    return base_ + at;
  }

 private:
  AcpiTables& tables_;
  std::uint64_t base_;
};

}  // namespace

AcpiTables build_acpi(const AcpiDescription& description, std::uint64_t base) {
  // The RSDP comes first, where a guest that scans for it looks first; its and the XSDT's contents
  // depend on what follows, but their sizes do not.
  constexpr std::size_t kRsdpSize = 36;
  constexpr std::size_t kRsdpRoom = 48;
  constexpr std::size_t kTablesInXsdt = 3;
  AcpiTables tables;
  Placement placement(tables, base);
  placement.add("RSDP", std::vector<std::byte>(kRsdpSize));
  const std::uint64_t xsdt =
      placement.add("XSDT", std::vector<std::byte>(kHeaderSize + kTablesInXsdt * 8));
  const std::uint64_t dsdt = placement.add("DSDT", build_dsdt_table(description));
  const std::array<std::uint64_t, kTablesInXsdt> addresses{
      placement.add("FACP", build_fadt(description, dsdt)),
      placement.add("APIC", build_madt(description)),
      placement.add("MCFG", build_mcfg(description))};
  static_assert(kRsdpRoom % 16 == 0 && kRsdpRoom >= kRsdpSize);
  std::ranges::copy(build_rsdp(xsdt), tables.bytes.begin());
  std::ranges::copy(build_xsdt(addresses),
                    tables.bytes.begin() + static_cast<std::ptrdiff_t>(kRsdpRoom));
  tables.rsdp = base;
  return tables;
}

}  // namespace outboard::boot
