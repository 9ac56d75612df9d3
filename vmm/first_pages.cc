#include "vmm/first_pages.h"

#include <algorithm>
#include <cstddef>

#include "vmm/memory_advice.h"

namespace outboard::vmm {
namespace {

constexpr std::uint64_t kHuge = 2 * kMiB;
constexpr std::uint64_t kWorthIt = 8 * kMiB;

constexpr std::uint64_t kBehindKernel = 16 * kMiB;
constexpr std::uint64_t kHashTables = 4 * kMiB;

constexpr std::uint64_t down(std::uint64_t value) {
  return value / kHuge * kHuge;
}

constexpr std::uint64_t up(std::uint64_t value) {
  return down(value + kHuge - 1);
}

// Whatever the host's settings for transparent huge pages are. A huge page of which nothing is
// there yet is left alone by the kernel, so one small page of it is made first.
bool collapse(std::span<std::byte> page) {
  ::madvise(page.data(), 1, MADV_POPULATE_WRITE);
  return ::madvise(page.data(), page.size(), MADV_COLLAPSE) == 0;
}

// The last page first.
template <class Each>
void each_huge_page(std::span<std::byte> range, const std::stop_token& stop, Each&& each) {
  while (!range.empty() && !stop.stop_requested()) {
    each(range.last(kHuge));
    range = range.first(range.size() - kHuge);
  }
}

}  // namespace

std::vector<PageRange> taken_first(std::span<const RamWindow> windows, const boot::Extent& kernel) {
  std::uint64_t memory = 0;
  for (const RamWindow& window : windows) memory += window.size;
  const std::uint64_t most = memory / 16;
  const RamWindow& first = windows.front();
  const RamWindow& last = windows.back();
  const std::uint64_t behind = std::min(up(kernel.address + kernel.size), first.size);
  const std::uint64_t low = down(std::min({kBehindKernel, most, first.size - behind}));
  // A window's bounds are multiples of 2 MiB.
  const std::uint64_t high = down(std::min({memory / 64 + kHashTables, most, last.size}));
  std::vector<PageRange> ranges;
  if (low != 0) ranges.push_back({first.address + behind, low});
  if (high != 0) ranges.push_back({last.address + last.size - high, high});
  return ranges;
}

void make_first_pages(const GuestMemory& memory, const boot::Extent& kernel, bool beyond_kernel,
                      const std::stop_token& stop) {
  if (kernel.size < kWorthIt) return;
  const RamWindow& first = memory.windows().front();
  const std::uint64_t end = std::min(up(kernel.address + kernel.size), first.size);
  each_huge_page(memory.bytes(first).first(end).subspan(down(kernel.address)), stop,
                 [](std::span<std::byte> page) {
                   if (!collapse(page)) ::madvise(page.data(), page.size(), MADV_POPULATE_WRITE);
                 });
  if (!beyond_kernel) return;
  for (const PageRange& range : taken_first(memory.windows(), kernel)) {
    each_huge_page(memory.at(range.address, range.size), stop, collapse);
  }
}

FirstPages::FirstPages(const GuestMemory& memory, const boot::Extent& kernel, bool beyond_kernel) {
  if (std::thread::hardware_concurrency() < 2) {
    make_first_pages(memory, kernel, beyond_kernel, {});
    return;
  }
  thread_ = std::jthread([&memory, kernel, beyond_kernel](const std::stop_token& stop) {
    make_first_pages(memory, kernel, beyond_kernel, stop);
  });
}

}  // namespace outboard::vmm
