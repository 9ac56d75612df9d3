#include "boot/fdt.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include <libfdt.h>

namespace outboard::boot {
namespace {

constexpr std::size_t kLargestTree = std::size_t{1} << 20;
constexpr std::uint64_t kEcamPerBus = std::uint64_t{1} << 20;

// phys.hi of a PCI address (IEEE 1275 PCI binding §2.2.1.1): space codes of `ranges`.
constexpr std::uint32_t kPciIo = 0x0100'0000;
constexpr std::uint32_t kPciMemory32 = 0x0200'0000;
constexpr std::uint32_t kPciMemory64 = 0x0300'0000;

std::string unit_name(std::string_view name, std::uint64_t address) {
  std::array<char, 16> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), address, 16).ptr;
  return std::string(name) + "@" + std::string(digits.data(), end);
}

// Writes a tree from front to back; the first error of libfdt sticks and is returned by finish().
class TreeWriter {
 public:
  TreeWriter() : bytes_(kLargestTree) {
    check(fdt_create(bytes_.data(), static_cast<int>(bytes_.size())));
    check(fdt_finish_reservemap(bytes_.data()));
  }

  void begin(const std::string& name) { check(fdt_begin_node(bytes_.data(), name.c_str())); }
  void end() { check(fdt_end_node(bytes_.data())); }

  void flag(const char* name) { check(fdt_property(bytes_.data(), name, nullptr, 0)); }
  void u32(const char* name, std::uint32_t value) {
    check(fdt_property_u32(bytes_.data(), name, value));
  }
  void u64(const char* name, std::uint64_t value) {
    check(fdt_property_u64(bytes_.data(), name, value));
  }
  void string(const char* name, const std::string& value) {
    property(name, value.c_str(), value.size() + 1);
  }
  void strings(const char* name, const std::vector<std::string>& values) {
    std::string joined;
    for (const std::string& value : values) joined.append(value).push_back('\0');
    property(name, joined.data(), joined.size());
  }
  void cells(const char* name, const std::vector<std::uint32_t>& values) {
    std::vector<std::uint32_t> big_endian;
    big_endian.reserve(values.size());
    for (const std::uint32_t value : values) big_endian.push_back(cpu_to_fdt32(value));
    property(name, big_endian.data(), big_endian.size() * sizeof(std::uint32_t));
  }

  Result<std::vector<std::byte>> finish() {
    check(fdt_finish(bytes_.data()));
    if (error_ != 0)
      return fail(std::string("the device tree cannot be written: ") + fdt_strerror(error_));
    bytes_.resize(fdt_totalsize(bytes_.data()));
    return std::move(bytes_);
  }

 private:
  void property(const char* name, const void* data, std::size_t size) {
    check(fdt_property(bytes_.data(), name, data, static_cast<int>(size)));
  }
  void check(int status) {
    if (error_ == 0 && status < 0) error_ = status;
  }

  std::vector<std::byte> bytes_;
  int error_ = 0;
};

std::uint32_t high(std::uint64_t value) {
  return static_cast<std::uint32_t>(value >> 32);
}
std::uint32_t low(std::uint64_t value) {
  return static_cast<std::uint32_t>(value);
}

void write_cpus(TreeWriter& tree, const FdtDescription& description) {
  // One cell is enough for ids of 32 bits; arm64's Aff3 needs two.
  const bool wide = std::ranges::any_of(description.cpu_ids, [](auto id) { return high(id) != 0; });
  tree.begin("cpus");
  tree.u32("#address-cells", wide ? 2 : 1);
  tree.u32("#size-cells", 0);
  for (const std::uint64_t id : description.cpu_ids) {
    tree.begin(unit_name("cpu", id));
    tree.string("device_type", "cpu");
    if (!description.cpu_compatible.empty()) tree.string("compatible", description.cpu_compatible);
    tree.cells("reg", wide ? std::vector{high(id), low(id)} : std::vector{low(id)});
    tree.end();
  }
  tree.end();
}

void write_memory(TreeWriter& tree, const MemoryRange& range) {
  tree.begin(unit_name("memory", range.base));
  tree.string("device_type", "memory");
  tree.cells("reg", {high(range.base), low(range.base), high(range.size), low(range.size)});
  tree.end();
}

void write_chosen(TreeWriter& tree, const FdtDescription& description) {
  tree.begin("chosen");
  tree.string("bootargs", description.command_line);
  if (description.initrd) {
    tree.u64("linux,initrd-start", description.initrd->base);
    tree.u64("linux,initrd-end", description.initrd->base + description.initrd->size);
  }
  tree.end();
}

// Linux Documentation/devicetree/bindings/pci/host-generic-pci.yaml.
void write_pci(TreeWriter& tree, const FdtDescription::Pci& pci) {
  std::vector<std::uint32_t> ranges;
  const auto add = [&](std::uint32_t space, std::uint64_t bus_address,
                       const FdtDescription::Window& window) {
    if (window.size == 0) return;
    ranges.insert(ranges.end(), {space, high(bus_address), low(bus_address), high(window.base),
                                 low(window.base), high(window.size), low(window.size)});
  };
  add(kPciIo, 0, pci.pio);
  add(kPciMemory32, pci.mmio32.base, pci.mmio32);
  add(kPciMemory64, pci.mmio64.base, pci.mmio64);
  const std::uint64_t ecam_size = (pci.last_bus + std::uint64_t{1}) * kEcamPerBus;

  tree.begin(unit_name("pcie", pci.ecam_base));
  tree.string("compatible", "pci-host-ecam-generic");
  tree.string("device_type", "pci");
  tree.u32("#address-cells", 3);
  tree.u32("#size-cells", 2);
  tree.cells("reg", {high(pci.ecam_base), low(pci.ecam_base), high(ecam_size), low(ecam_size)});
  tree.cells("bus-range", {0, pci.last_bus});
  tree.u32("linux,pci-domain", 0);
  tree.cells("ranges", ranges);
  tree.flag("dma-coherent");
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
  write_chosen(tree, description);
  for (const MemoryRange& range : description.memory) {
    if (range.kind == MemoryRange::Kind::ram) write_memory(tree, range);
  }
  write_cpus(tree, description);
  if (description.pci) write_pci(tree, *description.pci);
  tree.end();
  return tree.finish();
}

}  // namespace outboard::boot
