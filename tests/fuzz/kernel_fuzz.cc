// Kernel files: headers of ELF, bzImage, arm64 Image and EFI zboot, and what lies packed behind
// them.
#include <vector>

#include "boot/arm64_image.h"
#include "boot/arm64_start.h"
#include "boot/kernel.h"
#include "boot/start.h"
#include "tests/fuzz/input.h"

using namespace outboard;
using namespace outboard::boot;
using fuzz::require;

namespace {

constexpr std::size_t kRam = std::size_t{8} << 20;
constexpr std::byte kUntouched{0xaa};

// As the arm64 machine loads it. What is written is inside `ram`: the sanitizers watch.
void load_for_arm64(std::span<const std::byte> file, std::span<std::byte> ram, bool with_initrd) {
  constexpr std::uint64_t kBase = std::uint64_t{1} << 30;
  const Extent extent = expected_arm64_extent(file, ram.size());
  require(extent.size == 0 ||
          (extent.address <= ram.size() && extent.size <= ram.size() - extent.address));
  const auto kernel = load_arm64_kernel(file, ram, kBase);
  if (!kernel) {
    require(!kernel.error().message.empty());
    return;
  }
  require(kernel->protocol == Protocol::arm64);
  require(kernel->entry >= kBase && kernel->entry < kernel->end);
  require(kernel->end <= kBase + ram.size());
  const std::byte tree[3000]{};
  const std::byte initrd[5000]{};
  const auto state = place_arm64_boot_data(
      *kernel, tree, std::span(initrd).first(with_initrd ? sizeof initrd : 0), ram, kBase);
  if (!state) return;
  require(state->info % 8 == 0 && state->info >= kernel->end);
  require(state->info + sizeof tree <= kBase + ram.size());
  require(!with_initrd || (state->initrd_base >= state->info + sizeof tree &&
                           state->initrd_base + sizeof initrd <= kBase + ram.size()));
}

}  // namespace

// One byte says how it is to be entered, and on which machine; the rest is the file.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  constexpr Entry kEntries[] = {Entry::automatic, Entry::pvh, Entry::bzimage};
  const std::uint8_t how = input.byte();
  const Entry entry = kEntries[how % 3];
  const auto file = input.rest();

  if ((how & 0x40) != 0) {
    static std::vector<std::byte> arm64_ram(kRam);
    load_for_arm64(file, arm64_ram, how >= 128);
    return 0;
  }
  const Extent extent = expected_extent(file, kRam, entry);
  require(extent.size == 0 || (extent.address <= kRam && extent.size <= kRam - extent.address));

  // Only what a run has touched is made anew: the rest stays as it was.
  static std::vector<std::byte> ram(kRam, kUntouched);
  const auto kernel = load_kernel(file, ram, entry);
  static const std::vector<std::byte> untouched(kKernelFloor, kUntouched);
  require(std::memcmp(ram.data(), untouched.data(), kKernelFloor) == 0);
  if (!kernel) {
    require(!kernel.error().message.empty());
  } else {
    require(kernel->end <= kRam && kernel->entry < kRam && kernel->end > kKernelFloor);
    require(entry != Entry::pvh || kernel->protocol == Protocol::pvh);
    require(entry != Entry::bzimage || kernel->protocol == Protocol::linux64);
    const MemoryRange memory[] = {{0, 0xa0000, MemoryRange::Kind::ram},
                                  {0x10'0000, kRam - 0x10'0000, MemoryRange::Kind::ram}};
    const std::byte initrd[5000]{};
    const BootInfo info{.memory = memory,
                        .command_line = "console=ttyS0",
                        .initrd = std::span(initrd).first(how < 128 ? 0 : sizeof initrd),
                        .rsdp = 0xe0000};
    if (const auto state = place_boot_data(*kernel, info, ram)) {
      require(state->rip < kRam && state->info < kKernelFloor);
      require(state->initrd_size == info.initrd.size());
      require(state->initrd_size == 0 || state->initrd_base >= kernel->end);
    }
    std::memcpy(ram.data(), untouched.data(), kKernelFloor);
  }
  return 0;
}
