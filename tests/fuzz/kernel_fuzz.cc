// Kernel files: ELF and bzImage headers, and what lies packed behind them.
#include <vector>

#include "boot/kernel.h"
#include "boot/start.h"
#include "tests/fuzz/input.h"

using namespace outboard;
using namespace outboard::boot;
using fuzz::require;

namespace {

constexpr std::size_t kRam = std::size_t{8} << 20;
constexpr std::byte kUntouched{0xaa};

}  // namespace

// One byte says how it is to be entered; the rest is the file.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  constexpr Entry kEntries[] = {Entry::automatic, Entry::pvh, Entry::bzimage};
  const std::uint8_t how = input.byte();
  const Entry entry = kEntries[how % 3];
  const auto file = input.rest();

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
