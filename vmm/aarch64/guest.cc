// The arm64 machine as arch.h asks for it, as far as no KVM is needed: its layout, its kernel, and
// the device tree that it is told by.

#include <sys/random.h>

#include "boot/arm64_image.h"
#include "boot/arm64_start.h"
#include "vmm/aarch64/guest_tree.h"
#include "vmm/aarch64/layout.h"
#include "vmm/arch.h"

namespace outboard::vmm::arch {
namespace {

// New for every start of the guest. Without the host's random numbers the guest collects its own.
std::optional<boot::FdtDescription::Seeds> make_seeds() {
  boot::FdtDescription::Seeds seeds;
  if (::getrandom(seeds.rng.data(), seeds.rng.size(), 0) !=
          static_cast<ssize_t>(seeds.rng.size()) ||
      ::getrandom(&seeds.kaslr, sizeof seeds.kaslr, 0) !=
          static_cast<ssize_t>(sizeof seeds.kaslr)) {
    return std::nullopt;
  }
  return seeds;
}

std::span<std::byte> ram_of(const GuestMemory& memory) {
  return memory.bytes(memory.windows().front());
}

}  // namespace

std::vector<RamWindow> ram_windows(std::uint64_t memory) {
  return aarch64::ram_windows(memory);
}

Result<MemoryLayout> memory_layout(std::uint64_t memory, unsigned physical_bits) {
  return aarch64::memory_layout(memory, physical_bits);
}

Wiring wiring() {
  return aarch64::wiring();
}

std::optional<std::uint64_t> port_window() {
  return aarch64::kPortWindow;
}

std::optional<std::uint32_t> intx_gsi(std::uint32_t slot) {
  return aarch64::intx_gsi(slot);
}

std::vector<kvm_irq_routing_entry> fixed_routes() {
  return aarch64::fixed_routes();
}

std::uint32_t first_msi_gsi() {
  return aarch64::kPins;
}

Result<void> check(const MachineConfig& config) {
  if (config.entry == boot::Entry::automatic) return {};
  return failure(ExitStatus::configuration,
                 "kernel.entry: \"pvh\" and \"bzimage\" are ways into x86-64 kernels; an arm64 "
                 "machine takes \"auto\"");
}

boot::Result<boot::LoadedKernel> load_kernel(std::span<const std::byte> file,
                                             const GuestMemory& memory, boot::Entry /*entry*/,
                                             boot::UnpackedStore* store) {
  return boot::load_arm64_kernel(file, ram_of(memory), aarch64::kRam, store);
}

boot::Extent expected_extent(std::span<const std::byte> file, std::uint64_t window_size,
                             boot::Entry /*entry*/) {
  return boot::expected_arm64_extent(file, window_size);
}

bool is_packed_kernel(std::span<const std::byte> file) {
  return boot::is_packed_arm64(file);
}

Result<boot::EntryState> place_boot_data(const boot::LoadedKernel& kernel,
                                         const GuestDescription& description,
                                         std::span<const std::byte> initrd,
                                         const MemoryLayout& layout, const GuestMemory& memory) {
  const auto tree = aarch64::guest_tree(description, layout, make_seeds());
  if (!tree) return tl::unexpected(tree.error());
  auto entry = boot::place_arm64_boot_data(kernel, *tree, initrd, ram_of(memory), aarch64::kRam);
  if (!entry) return failure(ExitStatus::boot_image, entry.error().message);
  return *entry;
}

Result<std::vector<NamedFile>> acpi_tables(const GuestDescription& /*description*/,
                                           const MemoryLayout& /*layout*/) {
  return failure(ExitStatus::usage,
                 "an arm64 machine has no ACPI tables: 'outboard dump fdt' writes its device tree");
}

Result<NamedFile> device_tree(const GuestDescription& description, const MemoryLayout& layout) {
  auto tree = aarch64::guest_tree(description, layout, std::nullopt);
  if (!tree) return tl::unexpected(tree.error());
  return NamedFile{"outboard.dtb", std::move(*tree)};
}

}  // namespace outboard::vmm::arch
