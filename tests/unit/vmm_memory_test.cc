// Guest memory: the sealed memfd and its windows; the address map.
#include <cerrno>
#include <cstring>
#include <fstream>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/arch.h"
#include "vmm/guest_memory.h"

using namespace outboard::vmm;
using outboard::boot::MemoryRange;

namespace {

GuestMemory make_memory(std::uint64_t size, unsigned bits = 40) {
  auto layout = arch::memory_layout(size, bits);
  REQUIRE(layout);
  auto memory = GuestMemory::create(layout->ram, PageSize::k4);
  REQUIRE_MESSAGE(memory, memory.error().message);
  return std::move(*memory);
}

}  // namespace

TEST_CASE("DESIGN 1: guest memory is one memfd that nobody can shrink or grow") {
  const auto memory = make_memory(64 * kMiB);
  const int seals = ::fcntl(memory.fd(), F_GET_SEALS);
  CHECK((seals & F_SEAL_SHRINK) != 0);
  CHECK((seals & F_SEAL_GROW) != 0);
  CHECK((seals & F_SEAL_SEAL) != 0);
  CHECK(::ftruncate(memory.fd(), 0) == -1);
  CHECK(errno == EPERM);
  struct stat status {};
  REQUIRE(::fstat(memory.fd(), &status) == 0);
  CHECK(static_cast<std::uint64_t>(status.st_size) == 64 * kMiB);
  CHECK(status.st_blocks == 0);  // nothing is taken from the host before it is touched
}

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

TEST_CASE("both windows show the same file: what is written through one descriptor is read there") {
  const auto memory = make_memory(3 * kGiB + 64 * kMiB);
  const std::uint32_t low = 0x11223344;
  const std::uint32_t high = 0x55667788;
  std::memcpy(memory.at(0x20'0000, 4).data(), &low, 4);
  std::memcpy(memory.at(4 * kGiB + 0x1000, 4).data(), &high, 4);
  std::uint32_t read = 0;
  REQUIRE(::pread(memory.fd(), &read, 4, 0x20'0000) == 4);
  CHECK(read == low);
  REQUIRE(::pread(memory.fd(), &read, 4, static_cast<off_t>(3 * kGiB + 0x1000)) == 4);
  CHECK(read == high);
  CHECK(reinterpret_cast<std::uintptr_t>(memory.at(0, 1).data()) % (2 * kMiB) == 0);
}

TEST_CASE("a range is found only inside one window") {
  const auto memory = make_memory(3 * kGiB + 64 * kMiB);
  CHECK(memory.at(3 * kGiB - 4, 4).size() == 4);
  CHECK(memory.at(3 * kGiB - 4, 8).empty());
  CHECK(memory.at(3 * kGiB, 1).empty());
  CHECK(memory.at(4 * kGiB - 1, 1).empty());
  CHECK(memory.at(4 * kGiB + 64 * kMiB - 1, 1).size() == 1);
  CHECK(memory.at(4 * kGiB, 65 * kMiB).empty());
  CHECK(memory.at(~std::uint64_t{0}, 2).empty());
}

TEST_CASE("prefault = all: every page of the file is present afterwards") {
  const auto memory = make_memory(64 * kMiB);
  REQUIRE(memory.populate(2));
  struct stat status {};
  REQUIRE(::fstat(memory.fd(), &status) == 0);
  CHECK(static_cast<std::uint64_t>(status.st_blocks) * 512 == 64 * kMiB);
}

TEST_CASE("huge pages that the host does not have: one line with the number and the remedy") {
  std::uint64_t free = 0;
  std::ifstream("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages") >> free;
  if (free >= 32) {
    MESSAGE("this host has huge pages; not tested");
    return;
  }
  const auto layout = arch::memory_layout(64 * kMiB, 40);
  REQUIRE(layout);
  const auto memory = GuestMemory::create(layout->ram, PageSize::m2);
  REQUIRE_FALSE(memory);
  CHECK(memory.error().status == ExitStatus::memory);
  CHECK(memory.error().message.find("32 pages of 2 MiB are needed") != std::string::npos);
  CHECK(memory.error().message.find("nr_hugepages") != std::string::npos);
}

TEST_CASE("memory that is no multiple of the page size is refused") {
  const auto memory =
      GuestMemory::create({{.address = 0, .size = 64 * kMiB, .file_offset = 0}}, PageSize::g1);
  REQUIRE_FALSE(memory);
  CHECK(memory.error().message.find("multiple of the page size") != std::string::npos);
}

TEST_CASE("prefault = all of more than the host has left is refused before anything is touched") {
  auto layout = arch::memory_layout(1024 * kGiB, 46);
  REQUIRE(layout);
  const auto memory = GuestMemory::create(layout->ram, PageSize::k4);
  if (!memory) {
    MESSAGE("this host gives no terabyte of address space; not tested");
    return;
  }
  const auto populated = memory->populate(1);
  REQUIRE_FALSE(populated);
  CHECK(populated.error().status == ExitStatus::memory);
  CHECK(populated.error().message.find("prefault = \"off\"") != std::string::npos);
  struct stat status {};
  REQUIRE(::fstat(memory->fd(), &status) == 0);
  CHECK(status.st_blocks == 0);
}
