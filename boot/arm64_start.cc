#include "boot/arm64_start.h"

#include <algorithm>
#include <string>

#include "boot/bytes.h"
#include "boot/text.h"

namespace outboard::boot {
namespace {

constexpr std::uint64_t kLargestTree = std::uint64_t{2} << 20;
constexpr std::uint64_t kInitrdAlignment = 65536;                // a page of any kernel
constexpr std::uint64_t kInitrdReach = std::uint64_t{32} << 30;  // from the kernel's GiB on

}  // namespace

std::optional<std::uint64_t> arm64_initrd_address(std::uint64_t ram_base, std::uint64_t ram_size,
                                                  std::uint64_t size) {
  const std::uint64_t room = std::min(ram_size, kInitrdReach);
  if (size > room) return std::nullopt;
  return ram_base + (room - size) / kInitrdAlignment * kInitrdAlignment;
}

Result<EntryState> place_arm64_boot_data(const LoadedKernel& kernel,
                                         std::span<const std::byte> tree,
                                         std::span<const std::byte> initrd,
                                         std::span<std::byte> ram, std::uint64_t ram_base) {
  EntryState state;
  state.protocol = kernel.protocol;
  state.rip = kernel.entry;
  state.info = align_up(kernel.end, kLargestTree);
  const std::uint64_t ram_end = ram_base + ram.size();
  const std::uint64_t tree_end = state.info + kLargestTree;
  if (tree.size() > kLargestTree || tree_end > ram_end) {
    return fail("leaves no room for the device tree: the kernel ends at " +
                mebibytes(kernel.end - ram_base) + " of " + mebibytes(ram.size()) +
                "; raise the machine's memory");
  }
  std::ranges::copy(tree, ram.subspan(state.info - ram_base).begin());
  if (initrd.empty()) return state;

  const auto base = arm64_initrd_address(ram_base, ram.size(), initrd.size());
  if (!base || *base < tree_end) {
    return fail("leaves no room for the initrd: it has " + mebibytes(initrd.size()) +
                ", the kernel and the device tree end at " + mebibytes(tree_end - ram_base) +
                " and memory at " + mebibytes(ram.size()) + "; raise the machine's memory");
  }
  std::ranges::copy(initrd, ram.subspan(*base - ram_base).begin());
  state.initrd_base = *base;
  state.initrd_size = initrd.size();
  return state;
}

}  // namespace outboard::boot
