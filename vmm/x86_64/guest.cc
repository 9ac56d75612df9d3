// The kernel of the x86-64 machine, and what it is told: by ACPI, and by the start data of its boot
// protocol.

#include <algorithm>

#include "boot/bzimage.h"
#include "boot/fdt.h"
#include "vmm/arch.h"
#include "vmm/x86_64/firmware.h"

namespace outboard::vmm::arch {
namespace {

bool put(const GuestMemory& memory, std::uint64_t address, std::span<const std::byte> bytes) {
  const auto place = memory.at(address, bytes.size());
  if (place.size() != bytes.size()) return false;
  std::ranges::copy(bytes, place.begin());
  return true;
}

std::span<std::byte> low_memory(const GuestMemory& memory) {
  return memory.bytes(memory.windows().front());
}

}  // namespace

Result<void> check(const MachineConfig& /*config*/) {
  return {};
}

boot::Result<boot::LoadedKernel> load_kernel(std::span<const std::byte> file,
                                             const GuestMemory& memory, boot::Entry entry,
                                             boot::UnpackedStore* store) {
  return boot::load_kernel(file, low_memory(memory), entry, store);
}

boot::Extent expected_extent(std::span<const std::byte> file, std::uint64_t window_size,
                             boot::Entry entry) {
  return boot::expected_extent(file, window_size, entry);
}

bool is_packed_kernel(std::span<const std::byte> file) {
  return boot::is_bzimage(file);
}

Result<boot::EntryState> place_boot_data(const boot::LoadedKernel& kernel,
                                         const GuestDescription& description,
                                         std::span<const std::byte> initrd,
                                         const MemoryLayout& layout, const GuestMemory& memory) {
  const x86_64::FirmwareTables tables = x86_64::firmware_tables(description.vcpus, layout);
  if (!put(memory, tables.base, tables.bytes) ||
      !put(memory, tables.reset_vector, tables.reset_code)) {
    return failure(ExitStatus::internal_error, "the firmware tables do not fit guest memory");
  }
  const boot::BootInfo info{.memory = layout.map,
                            .command_line = description.command_line,
                            .initrd = initrd,
                            .rsdp = tables.rsdp};
  auto entry = boot::place_boot_data(kernel, info, low_memory(memory));
  if (!entry) return failure(ExitStatus::boot_image, entry.error().message);
  return *entry;
}

Result<std::vector<NamedFile>> acpi_tables(const GuestDescription& description,
                                           const MemoryLayout& layout) {
  const x86_64::FirmwareTables firmware = x86_64::firmware_tables(description.vcpus, layout);
  std::vector<NamedFile> files;
  for (const boot::NamedTable& table : firmware.tables) {
    const auto bytes = std::span(firmware.bytes).subspan(table.offset, table.size);
    files.push_back({table.name + ".aml", {bytes.begin(), bytes.end()}});
  }
  return files;
}

// What a kernel with a device tree would be told; Linux on x86-64 is not.
Result<NamedFile> device_tree(const GuestDescription& description, const MemoryLayout& layout) {
  boot::FdtDescription fdt;
  fdt.cpu_compatible = "cpu-x86";
  for (std::uint32_t i = 0; i < description.vcpus; ++i) fdt.cpu_ids.push_back(i);
  fdt.memory = layout.map;
  fdt.command_line = description.command_line;
  boot::FdtDescription::Pci pci;
  pci.ecam_base = layout.ecam_base;
  pci.mmio32 = {layout.mmio32.base, layout.mmio32.size};
  pci.mmio64 = {layout.mmio64.base, layout.mmio64.size};
  fdt.pci = pci;
  auto tree = boot::build_fdt(fdt);
  if (!tree) return failure(ExitStatus::internal_error, tree.error().message);
  return NamedFile{"outboard.dtb", std::move(*tree)};
}

}  // namespace outboard::vmm::arch
