// What of guest memory is made present before a kernel starts, and what is left to the guest.
#include <algorithm>
#include <vector>

#include <doctest/doctest.h>

#include "vmm/first_pages.h"
#include "vmm/memory_advice.h"

using namespace outboard;
using namespace outboard::vmm;

namespace {

constexpr std::uint64_t kHuge = 2 * kMiB;
constexpr boot::Extent kKernel{16 * kMiB, 50 * kMiB + 4096};
constexpr std::uint64_t kKernelEnd = 68 * kMiB;  // rounded up to a huge page

GuestMemory memory_of(std::uint64_t size) {
  auto memory = GuestMemory::create({{0, size, 0}}, PageSize::k4);
  REQUIRE_MESSAGE(memory, memory.error().message);
  return std::move(*memory);
}

// Bytes of [address, address + size) that the host has pages for.
std::uint64_t present(const GuestMemory& memory, std::uint64_t address, std::uint64_t size) {
  const auto bytes = memory.at(address, size);
  std::vector<unsigned char> pages(size / 4096);
  REQUIRE(::mincore(bytes.data(), bytes.size(), pages.data()) == 0);
  return static_cast<std::uint64_t>(
             std::ranges::count_if(pages, [](unsigned char page) { return (page & 1) != 0; })) *
         4096;
}

// Whether this host makes huge pages of shared memory when it is asked to (Linux 6.1 and later).
bool collapses() {
  const GuestMemory memory = memory_of(64 * kMiB);
  auto page = memory.at(0, kHuge);
  page[0] = std::byte{1};
  return ::madvise(page.data(), page.size(), MADV_COLLAPSE) == 0 &&
         present(memory, 0, kHuge) == kHuge;
}

}  // namespace

TEST_CASE("what Linux takes first: behind its image, and at the end of the last window") {
  const RamWindow small{0, 512 * kMiB, 0};
  CHECK(taken_first({&small, 1}, kKernel) ==
        std::vector<PageRange>{{kKernelEnd, 16 * kMiB}, {500 * kMiB, 12 * kMiB}});
  const std::vector<RamWindow> two{{0, 3 * kGiB, 0}, {4 * kGiB, 3 * kGiB, 3 * kGiB}};
  CHECK(taken_first(two, kKernel) ==
        std::vector<PageRange>{{kKernelEnd, 16 * kMiB}, {7 * kGiB - 100 * kMiB, 100 * kMiB}});
  const RamWindow elsewhere{kGiB, 512 * kMiB, 0};  // arm64's
  CHECK(taken_first({&elsewhere, 1}, kKernel).front() == PageRange{kGiB + kKernelEnd, 16 * kMiB});
  // A sixteenth of the memory each, and not what is not there.
  const RamWindow least{0, 64 * kMiB, 0};
  CHECK(taken_first({&least, 1}, kKernel) == std::vector<PageRange>{{60 * kMiB, 4 * kMiB}});
  const std::vector<RamWindow> sliver{{0, 3 * kGiB, 0}, {4 * kGiB, kHuge, 3 * kGiB}};
  CHECK(taken_first(sliver, kKernel).back() == PageRange{4 * kGiB, kHuge});
}

TEST_CASE(
    "prefault = auto: the pages that a kernel takes first are there before it runs, no others") {
  if (!collapses()) {
    MESSAGE("SKIPPED: this host makes no huge pages of shared memory on request (Linux 6.1)");
    return;
  }
  const GuestMemory memory = memory_of(512 * kMiB);
  memory.at(kKernelEnd + 4096, 1)[0] = std::byte{0x5a};  // what is there stays
  make_first_pages(memory, kKernel, true, {});
  CHECK(present(memory, kKernel.address, kKernelEnd - kKernel.address) ==
        kKernelEnd - kKernel.address);
  CHECK(present(memory, kKernelEnd, 16 * kMiB) == 16 * kMiB);
  CHECK(present(memory, 500 * kMiB, 12 * kMiB) == 12 * kMiB);
  CHECK(present(memory, 0, memory.size()) == kKernelEnd - kKernel.address + 28 * kMiB);
  CHECK(memory.at(kKernelEnd + 4096, 1)[0] == std::byte{0x5a});
}

TEST_CASE("prefault = off, or a small kernel: guest memory is left to the guest") {
  const GuestMemory memory = memory_of(512 * kMiB);
  make_first_pages(memory, {16 * kMiB, 4 * kMiB}, true, {});
  CHECK(present(memory, 0, memory.size()) == 0);
  make_first_pages(memory, kKernel, false, {});
  CHECK(present(memory, kKernelEnd, memory.size() - kKernelEnd) == 0);
}

TEST_CASE("the kernel is there: no more pages are made") {
  const GuestMemory memory = memory_of(512 * kMiB);
  std::stop_source stop;
  stop.request_stop();
  make_first_pages(memory, kKernel, true, stop.get_token());
  CHECK(present(memory, 0, memory.size()) == 0);
}

TEST_CASE("a kernel is copied while its pages are being made: every byte of it is there") {
  const GuestMemory memory = memory_of(512 * kMiB);
  std::vector<std::byte> kernel(kKernel.size);
  for (std::size_t i = 0; i < kernel.size(); ++i) {
    kernel[i] = static_cast<std::byte>(i + i / 4096);  // no page like the next
  }
  const auto image = memory.at(kKernel.address, kKernel.size);
  {
    const FirstPages present(memory, kKernel, true);
    std::ranges::copy(kernel, image.begin());
  }  // ends here, whatever it had made
  CHECK(std::ranges::equal(kernel, image));
  CHECK(present(memory, kKernel.address, kKernel.size) == kKernel.size);
}
