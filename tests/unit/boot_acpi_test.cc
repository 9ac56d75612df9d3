#include <algorithm>
#include <numeric>
#include <set>
#include <string>

#include <doctest/doctest.h>

#include "boot/acpi.h"
#include "boot/bytes.h"
#include "tests/unit/boot_tools.h"

using namespace outboard::boot;

namespace {

constexpr std::uint64_t kBase = 0xe0000;

AcpiDescription machine(std::uint32_t vcpus) {
  AcpiDescription description;
  for (std::uint32_t i = 0; i < vcpus; ++i) description.apic_ids.push_back(i);
  description.ecam_base = 0xe000'0000;
  description.mmio32 = {0xc000'0000, 0x2000'0000};
  description.mmio64 = {0x40'0000'0000, 0x10'0000'0000};
  for (std::uint8_t slot = 1; slot <= 8; ++slot) {
    description.pci_irqs.push_back({slot, 0, 15u + slot});
  }
  description.uart = AcpiDescription::Uart{0x3f8, 4};
  description.ged_gsi = 5;
  description.sleep_control_port = 0x600;
  description.sleep_status_port = 0x601;
  description.reset_port = 0x602;
  description.reset_value = 1;
  return description;
}

std::span<const std::byte> table(const AcpiTables& tables, std::string_view name) {
  const auto found = std::ranges::find(tables.tables, name, &NamedTable::name);
  REQUIRE(found != tables.tables.end());
  return std::span(tables.bytes).subspan(found->offset, found->size);
}

unsigned sum(std::span<const std::byte> bytes) {
  unsigned total = 0;
  for (const std::byte byte : bytes) total += std::to_integer<unsigned>(byte);
  return total & 0xff;
}

}  // namespace

TEST_CASE("ACPI 6.3 §5.2: RSDP leads to the XSDT and that to every table; all sums are 0") {
  const AcpiTables tables = build_acpi(machine(2), kBase);
  CHECK(tables.rsdp == kBase);
  const std::span bytes(tables.bytes);
  const auto rsdp = table(tables, "RSDP");
  CHECK(has_magic(rsdp, 0, "RSD PTR "));
  CHECK(sum(rsdp.first(20)) == 0);
  CHECK(sum(rsdp) == 0);
  const std::uint64_t xsdt_at = load<std::uint64_t>(rsdp, 24) - kBase;
  const auto xsdt = bytes.subspan(xsdt_at, load<std::uint32_t>(bytes, xsdt_at + 4));
  CHECK(has_magic(xsdt, 0, "XSDT"));
  CHECK(sum(xsdt) == 0);
  std::set<std::string> found;
  for (std::size_t at = 36; at < xsdt.size(); at += 8) {
    const std::uint64_t offset = load<std::uint64_t>(xsdt, at) - kBase;
    REQUIRE(offset < bytes.size());
    const auto one = bytes.subspan(offset, load<std::uint32_t>(bytes, offset + 4));
    CHECK(sum(one) == 0);
    found.emplace(reinterpret_cast<const char*>(one.data()), 4);
  }
  CHECK(found == std::set<std::string>{"FACP", "APIC", "MCFG"});
  CHECK(sum(table(tables, "DSDT")) == 0);
}

TEST_CASE(
    "ACPI 6.3 §5.2.9: FADT of reduced hardware with reset and sleep ports, no legacy devices") {
  const AcpiTables tables = build_acpi(machine(1), kBase);
  const auto fadt = table(tables, "FACP");
  REQUIRE(fadt.size() == 276);
  CHECK(load<std::uint8_t>(fadt, 8) == 6);
  CHECK(load<std::uint8_t>(fadt, 131) == 3);
  const auto flags = load<std::uint32_t>(fadt, 112);
  CHECK((flags & 1u << 20) != 0);  // HW_REDUCED_ACPI
  CHECK((flags & 1u << 10) != 0);  // RESET_REG_SUP
  const auto boot = load<std::uint16_t>(fadt, 109);
  CHECK((boot & 1u << 1) == 0);  // no 8042
  CHECK((boot & 1u << 2) != 0);  // VGA not present
  CHECK((boot & 1u << 3) == 0);  // MSI is supported
  CHECK((boot & 1u << 5) != 0);  // CMOS RTC not present
  const auto port_at = [&](std::size_t at) {
    CHECK(load<std::uint8_t>(fadt, at) == 1);      // system I/O
    CHECK(load<std::uint8_t>(fadt, at + 1) == 8);  // bits
    return load<std::uint64_t>(fadt, at + 4);
  };
  CHECK(port_at(116) == 0x602);
  CHECK(load<std::uint8_t>(fadt, 128) == 1);
  CHECK(port_at(244) == 0x600);
  CHECK(port_at(256) == 0x601);
  const auto dsdt = std::ranges::find(tables.tables, "DSDT", &NamedTable::name);
  CHECK(load<std::uint32_t>(fadt, 40) == kBase + dsdt->offset);
  CHECK(load<std::uint64_t>(fadt, 140) == kBase + dsdt->offset);
}

TEST_CASE("ACPI 6.3 §5.2.12: MADT without PCAT_COMPAT; ids from 255 on are x2APIC entries") {
  AcpiDescription description = machine(2);
  description.apic_ids.push_back(254);
  description.apic_ids.push_back(255);
  description.apic_ids.push_back(300);
  const AcpiTables tables = build_acpi(description, kBase);
  const auto madt = table(tables, "APIC");
  CHECK(load<std::uint32_t>(madt, 36) == 0xfee0'0000);
  CHECK(load<std::uint32_t>(madt, 40) == 0);
  std::vector<std::uint32_t> local;
  std::vector<std::uint32_t> x2;
  std::vector<std::uint32_t> io;
  for (std::size_t at = 44; at < madt.size(); at += load<std::uint8_t>(madt, at + 1)) {
    REQUIRE(load<std::uint8_t>(madt, at + 1) >= 8);
    switch (load<std::uint8_t>(madt, at)) {
      case 0:
        CHECK(load<std::uint32_t>(madt, at + 4) == 1);
        local.push_back(load<std::uint8_t>(madt, at + 3));
        break;
      case 9:
        CHECK(load<std::uint32_t>(madt, at + 8) == 1);
        x2.push_back(load<std::uint32_t>(madt, at + 4));
        break;
      case 1:
        io.push_back(load<std::uint32_t>(madt, at + 4));
        CHECK(load<std::uint32_t>(madt, at + 8) == 0);
        break;
      default:
        FAIL("an entry that is not expected");
    }
  }
  CHECK(local == std::vector<std::uint32_t>{0, 1, 254});
  CHECK(x2 == std::vector<std::uint32_t>{255, 300});
  CHECK(io == std::vector<std::uint32_t>{0xfec0'0000});
}

TEST_CASE("PCI Firmware 3.2 §4.1.2: MCFG names the ECAM window of segment 0") {
  AcpiDescription description = machine(1);
  description.last_bus = 3;
  const AcpiTables tables = build_acpi(description, kBase);
  const auto mcfg = table(tables, "MCFG");
  REQUIRE(mcfg.size() == 60);
  CHECK(load<std::uint64_t>(mcfg, 44) == 0xe000'0000);
  CHECK(load<std::uint16_t>(mcfg, 52) == 0);
  CHECK(load<std::uint8_t>(mcfg, 54) == 0);
  CHECK(load<std::uint8_t>(mcfg, 55) == 3);
}

TEST_CASE("tables of 64 vCPUs fit the 128 KiB below 1 MiB") {
  CHECK(build_acpi(machine(64), kBase).bytes.size() <= 0x2'0000);
}

TEST_CASE("iasl: every table disassembles, and compiles again without a remark") {
  if (!samples::Workshop::has("iasl")) return;
  AcpiDescription large = machine(64);
  large.apic_ids.push_back(300);
  large.last_bus = 255;
  AcpiDescription small = machine(1);
  small.uart.reset();
  small.pci_irqs.clear();
  small.mmio64 = {};
  small.pio = {};
  AcpiDescription far = machine(4);
  far.ecam_base = 0x80'0000'0000;
  for (const AcpiDescription& description : {machine(2), large, small, far}) {
    const AcpiTables tables = build_acpi(description, kBase);
    const samples::Workshop workshop;
    for (const NamedTable& named : tables.tables) {
      if (named.name == "RSDP") continue;  // iasl reads it only in front of other tables
      CAPTURE(named.name);
      workshop.write(named.name + ".dat", table(tables, named.name));
      REQUIRE(workshop.run("iasl -d " + named.name + ".dat") == 0);
      const std::string disassembly = workshop.read("log");
      for (const char* complaint : {"Warning", "Error", "Remark", "Invalid", "External"}) {
        CHECK_MESSAGE(disassembly.find(complaint) == std::string::npos, disassembly);
      }
      CHECK(workshop.run("iasl -p again " + named.name + ".dsl") == 0);
      const std::string compilation = workshop.read("log");
      CHECK_MESSAGE(compilation.find("0 Errors, 0 Warnings, 0 Remarks") != std::string::npos,
                    compilation);
      // For the tables of data the round trip gives the same bytes but for the compiler's stamp.
      if (named.name == "DSDT") continue;
      const std::string again = workshop.read("again.aml");
      REQUIRE(again.size() == named.size);
      CHECK(std::memcmp(again.data() + 36, table(tables, named.name).data() + 36,
                        named.size - 36) == 0);
    }
  }
}

TEST_CASE("iasl: the DSDT says what the machine is made of") {
  if (!samples::Workshop::has("iasl")) return;
  const AcpiTables tables = build_acpi(machine(2), kBase);
  const samples::Workshop workshop;
  workshop.write("DSDT.dat", table(tables, "DSDT"));
  REQUIRE(workshop.run("iasl -d DSDT.dat") == 0);
  const std::string dsdt = workshop.read("DSDT.dsl");
  for (const std::string part :
       {"\"PNP0A08\"", "\"PNP0A03\"", "\"PNP0C02\"", "\"PNP0501\"", "\"PNP0C0C\"", "\"ACPI0013\"",
        "\"ACPI0007\"", "Name (_PRT, Package (0x08)", "Method (_OSC, 4, Serialized)",
        "Method (_EVT, 1, Serialized)", "Notify (\\_SB.PWRB, 0x80)", "Name (\\_S5, Package (0x04)",
        "0xE0000000,         // Address Base", "Device (C001)",
        "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, )"}) {
    CAPTURE(part);
    CHECK(dsdt.find(part) != std::string::npos);
  }
}
