// The x86-64 machine's address map.
#include <algorithm>

#include <doctest/doctest.h>

#include "vmm/arch.h"

using namespace outboard::vmm;
using outboard::boot::MemoryRange;

TEST_CASE("DESIGN 1: every window's base, length and file offset is a multiple of 2 MiB") {
  for (const std::uint64_t size : {64 * kMiB, kGiB, 3 * kGiB, 3 * kGiB + 2 * kMiB, 6 * kGiB}) {
    const auto layout = arch::memory_layout(size, 40);
    REQUIRE(layout);
    std::uint64_t total = 0;
    for (const RamWindow& window : layout->ram) {
      CHECK(window.address % (2 * kMiB) == 0);
      CHECK(window.size % (2 * kMiB) == 0);
      CHECK(window.file_offset == total);
      total += window.size;
    }
    CHECK(total == size);
    CHECK(layout->ram.size() == (size > 3 * kGiB ? 2U : 1U));
  }
}

TEST_CASE("the memory map tells the guest of all memory and keeps ECAM and the legacy hole out") {
  const auto layout = arch::memory_layout(6 * kGiB, 40);
  REQUIRE(layout);
  std::uint64_t ram = 0;
  std::uint64_t end = 0;
  bool ecam = false;
  for (const MemoryRange& range : layout->map) {
    CHECK(range.base >= end);  // ascending, not overlapping
    end = range.base + range.size;
    if (range.kind == MemoryRange::Kind::ram) ram += range.size;
    if (range.base == layout->ecam_base) ecam = range.kind == MemoryRange::Kind::reserved;
  }
  CHECK(ram == 6 * kGiB - (0x10'0000 - 0xA'0000));
  CHECK(ecam);
}

TEST_CASE("the 64-bit window starts above memory, 1 GiB aligned, inside the physical addresses") {
  for (const unsigned bits : {36U, 39U, 40U, 46U, 52U}) {
    for (const std::uint64_t size : {64 * kMiB, 3 * kGiB, 10 * kGiB}) {
      const auto layout = arch::memory_layout(size, bits);
      REQUIRE(layout);
      CHECK(layout->mmio64.base % kGiB == 0);
      const RamWindow& last = layout->ram.back();
      CHECK(layout->mmio64.base >= std::max(4 * kGiB, last.address + last.size));
      CHECK(layout->mmio64.end() <= std::uint64_t{1} << bits);
      CHECK(layout->mmio64.size >= (bits == 36 ? 48 : 64) * kGiB);
    }
  }
}

TEST_CASE("more memory than the guest can address is refused in one line") {
  const auto layout = arch::memory_layout(64 * kGiB, 36);
  REQUIRE_FALSE(layout);
  CHECK(layout.error().status == ExitStatus::memory);
  CHECK(layout.error().message.find("36 address bits") != std::string::npos);
}
