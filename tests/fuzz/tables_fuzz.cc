// Machine descriptions into the builders of the ACPI tables and of the device tree; what comes out
// is walked as a guest would walk it.
#include <libfdt.h>

#include "boot/acpi.h"
#include "boot/bytes.h"
#include "boot/fdt.h"
#include "tests/fuzz/input.h"

using namespace outboard;
using namespace outboard::boot;
using fuzz::Input;
using fuzz::require;

namespace {

AcpiDescription acpi_description(Input& input) {
  AcpiDescription out;
  const std::size_t cpus = input.below(3) == 2 ? input.below(600) : input.below(5);
  for (std::size_t i = 0; i < cpus; ++i) {
    out.apic_ids.push_back(input.one_in(16) ? static_cast<std::uint32_t>(input.number())
                                            : static_cast<std::uint32_t>(i));
  }
  out.local_apic_address = static_cast<std::uint32_t>(input.number());
  out.ioapic_address = static_cast<std::uint32_t>(input.number());
  out.ioapic_id = static_cast<std::uint32_t>(input.number());
  out.ecam_base = input.number();
  out.last_bus = input.byte();
  out.mmio32 = {input.number(), input.number()};
  out.mmio64 = {input.number(), input.number()};
  out.pio = {input.number(), input.number()};
  for (std::size_t left = input.below(70); left > 0; --left) {
    out.pci_irqs.push_back(
        {input.byte(), input.byte(), static_cast<std::uint32_t>(input.number())});
  }
  if (!input.one_in(2)) {
    out.uart = AcpiDescription::Uart{input.take<std::uint16_t>(),
                                     static_cast<std::uint32_t>(input.number())};
  }
  out.ged_gsi = static_cast<std::uint32_t>(input.number());
  out.sleep_control_port = input.take<std::uint16_t>();
  out.sleep_status_port = input.take<std::uint16_t>();
  out.reset_port = input.take<std::uint16_t>();
  out.reset_value = input.byte();
  return out;
}

// --- ACPI ---

unsigned sum(std::span<const std::byte> bytes) {
  unsigned total = 0;
  for (const std::byte byte : bytes) total += std::to_integer<unsigned>(byte);
  return total & 0xff;
}

// A table by its guest-physical address: inside what was built, of the length it says, sum 0.
std::span<const std::byte> table_at(std::span<const std::byte> all, std::uint64_t base,
                                    std::uint64_t address) {
  constexpr std::uint32_t kHeader = 36;
  require(address >= base && address - base <= all.size() - kHeader);
  const auto rest = all.subspan(address - base);
  const auto length = load<std::uint32_t>(rest, 4);
  require(length >= kHeader && length <= rest.size());
  const auto table = rest.first(length);
  require(sum(table) == 0);
  return table;
}

// Entries of type, length and body that fill the rest of a table exactly.
std::size_t walk_entries(std::span<const std::byte> entries) {
  std::size_t count = 0;
  for (; !entries.empty(); ++count) {
    require(entries.size() >= 2);
    const auto length = load<std::uint8_t>(entries, 1);
    require(length >= 2 && length <= entries.size());
    entries = entries.subspan(length);
  }
  return count;
}

// A package length (ACPI 6.3 §20.2.4): how many bytes it takes, and what it says.
std::pair<std::size_t, std::size_t> package_length(std::span<const std::byte> at) {
  require(!at.empty());
  const auto lead = std::to_integer<std::size_t>(at[0]);
  const std::size_t more = lead >> 6;
  if (more == 0) return {1, lead};
  require(at.size() > more && (lead & 0x30) == 0);
  std::size_t length = lead & 0xf;
  for (std::size_t i = 1; i <= more; ++i) {
    length |= std::to_integer<std::size_t>(at[i]) << (8 * i - 4);
  }
  return {1 + more, length};
}

// The top level of a DSDT: objects one behind the other, each ending inside the table.
void walk_aml(std::span<const std::byte> code) {
  constexpr std::byte kName{0x08};
  constexpr std::byte kScope{0x10};
  constexpr std::byte kMethod{0x14};
  constexpr std::byte kExtended{0x5b};
  while (!code.empty()) {
    std::size_t prefix = 1;
    if (code[0] == kExtended) {
      prefix = 2;
      require(code.size() > 2);
    } else if (code[0] == kName) {
      return;  // its value has no length of its own
    } else {
      require(code[0] == kScope || code[0] == kMethod);
    }
    const auto [width, length] = package_length(code.subspan(prefix));
    require(length >= width && prefix + length <= code.size());
    code = code.subspan(prefix + length);
  }
}

void check_acpi(const AcpiDescription& description, std::uint64_t base) {
  const AcpiTables built = build_acpi(description, base);
  const std::span<const std::byte> all(built.bytes);
  require(built.rsdp >= base && built.rsdp - base + 36 <= all.size() && built.rsdp % 16 == 0);
  const auto rsdp = all.subspan(built.rsdp - base, 36);
  require(has_magic(rsdp, 0, "RSD PTR ") && sum(rsdp.first(20)) == 0 && sum(rsdp) == 0);

  const auto xsdt = table_at(all, base, load<std::uint64_t>(rsdp, 24));
  require(has_magic(xsdt, 0, "XSDT") && (xsdt.size() - 36) % 8 == 0);
  bool facp = false;
  bool apic = false;
  bool mcfg = false;
  for (std::size_t at = 36; at < xsdt.size(); at += 8) {
    const auto table = table_at(all, base, load<std::uint64_t>(xsdt, at));
    if (has_magic(table, 0, "FACP")) {
      facp = true;
      const auto dsdt = table_at(all, base, load<std::uint64_t>(table, 140));
      require(has_magic(dsdt, 0, "DSDT"));
      walk_aml(dsdt.subspan(36));
    } else if (has_magic(table, 0, "APIC")) {
      apic = true;
      // One a vCPU and an I/O APIC at least.
      require(walk_entries(table.subspan(44)) > description.apic_ids.size());
    } else if (has_magic(table, 0, "MCFG")) {
      mcfg = true;
      require(table.size() == 60 && load<std::uint64_t>(table, 44) == description.ecam_base);
      require(load<std::uint8_t>(table, 55) == description.last_bus);
    }
  }
  require(facp && apic && mcfg);

  // What `dump` writes: the named tables cover the bytes in order and do not overlap.
  std::size_t end = 0;
  for (const NamedTable& table : built.tables) {
    require(table.offset >= end && table.size <= all.size() - table.offset);
    end = table.offset + table.size;
  }
}

// --- device tree ---

FdtDescription fdt_description(Input& input) {
  FdtDescription out;
  const auto text = [&] { return std::string(fuzz::text_of(input.bytes(input.below(40)))); };
  if (input.one_in(4)) out.model = text();
  if (input.one_in(4)) out.compatible.push_back(text());
  out.cpu_compatible = text();
  for (std::size_t left = input.below(70); left > 0; --left) out.cpu_ids.push_back(input.number());
  for (std::size_t left = input.below(20); left > 0; --left) {
    out.memory.push_back(
        {input.number(), input.number(), static_cast<MemoryRange::Kind>(input.below(3))});
  }
  out.command_line = std::string(fuzz::text_of(input.bytes(input.below(4096))));
  if (input.one_in(2)) out.initrd = FdtDescription::Initrd{input.number(), input.number()};
  if (input.one_in(2)) {
    out.pci = FdtDescription::Pci{.ecam_base = input.number(),
                                  .last_bus = input.byte(),
                                  .pio = {input.number(), input.number()},
                                  .mmio32 = {input.number(), input.number()},
                                  .mmio64 = {input.number(), input.number()}};
    for (std::size_t left = input.below(70); left > 0; --left) {
      out.pci->irqs.push_back(
          {input.byte(), input.byte(), static_cast<std::uint32_t>(input.number())});
    }
  }
  if (input.one_in(2)) {
    auto& arm = out.arm.emplace();
    arm.distributor = {input.number(), input.number()};
    arm.redistributors = {input.number(), input.number()};
    arm.its = {input.number(), input.number()};
    if (input.one_in(2)) {
      boot::FdtDescription::Uart uart{};
      uart.registers = {input.number(), input.number()};
      uart.spi = static_cast<std::uint32_t>(input.number());
      arm.uart = uart;
    }
    if (input.one_in(2)) arm.power_key_spi = static_cast<std::uint32_t>(input.number());
    if (input.one_in(2)) {
      boot::FdtDescription::Seeds seeds{};
      seeds.kaslr = input.number();
      out.seeds = seeds;
    }
  }
  return out;
}

// The node that drives `compatible`, or what libfdt says. The root and the nodes of CPUs are passed
// over: what they are compatible with is the input's, which may be any of these words.
int node_of(const void* tree, const char* compatible) {
  const int cpus = fdt_path_offset(tree, "/cpus");
  int node = -1;
  do {
    node = fdt_node_offset_by_compatible(tree, node, compatible);
  } while (node == 0 || (node > 0 && fdt_parent_offset(tree, node) == cpus));
  return node;
}

// Every interrupt of an arm64 tree ends at the GIC, every message at the ITS.
void check_interrupts(const void* tree) {
  const int gic = node_of(tree, "arm,gic-v3");
  const int its = node_of(tree, "arm,gic-v3-its");
  require(gic > 0 && its > 0 && fdt_parent_offset(tree, its) == gic);
  int length = 0;
  const auto* parent =
      static_cast<const fdt32_t*>(fdt_getprop(tree, 0, "interrupt-parent", &length));
  require(parent != nullptr && length == 4 && fdt32_ld(parent) == fdt_get_phandle(tree, gic));
  const int pci = node_of(tree, "pci-host-ecam-generic");
  if (pci < 0) return;
  const auto* msi = static_cast<const fdt32_t*>(fdt_getprop(tree, pci, "msi-map", &length));
  require(msi != nullptr && length == 16 && fdt32_ld(msi + 1) == fdt_get_phandle(tree, its));
  const auto* map = static_cast<const fdt32_t*>(fdt_getprop(tree, pci, "interrupt-map", &length));
  constexpr int kEntry = 10;  // cells: a PCI address and pin, the GIC and its address and specifier
  require(map == nullptr || length % (kEntry * 4) == 0);
  for (int at = 0; map != nullptr && at < length / 4; at += kEntry) {
    require(fdt32_ld(map + at + 4) == fdt_get_phandle(tree, gic));
  }
}

void check_fdt(const FdtDescription& description) {
  const auto tree = build_fdt(description);
  if (!tree) {
    require(!tree.error().message.empty());
    return;
  }
  require(fdt_check_full(tree->data(), tree->size()) == 0);
  const int chosen = fdt_path_offset(tree->data(), "/chosen");
  require(chosen > 0);
  int length = 0;
  const void* const line = fdt_getprop(tree->data(), chosen, "bootargs", &length);
  require(line != nullptr && length == static_cast<int>(description.command_line.size()) + 1);
  require(std::memcmp(line, description.command_line.c_str(), static_cast<std::size_t>(length)) ==
          0);
  if (description.arm) check_interrupts(tree->data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  if (input.one_in(2)) {
    check_fdt(fdt_description(input));
  } else {
    const std::uint64_t base = input.one_in(4) ? input.take<std::uint32_t>() & ~0xfULL : 0xe0000;
    check_acpi(acpi_description(input), base);
  }
  return 0;
}
