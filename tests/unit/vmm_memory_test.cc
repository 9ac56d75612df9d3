// Guest memory: the sealed memfd and its windows.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/guest_memory.h"

using namespace outboard::vmm;

namespace {

// One window, or two with a hole between them.
std::vector<RamWindow> windows(std::uint64_t size) {
  const std::uint64_t low = std::min(size, 3 * kGiB);
  std::vector<RamWindow> all{{.address = 0, .size = low, .file_offset = 0}};
  if (size > low) all.push_back({.address = 4 * kGiB, .size = size - low, .file_offset = low});
  return all;
}

GuestMemory make_memory(std::uint64_t size) {
  auto memory = GuestMemory::create(windows(size), PageSize::k4);
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
  const auto memory = GuestMemory::create(windows(64 * kMiB), PageSize::m2);
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
  const auto memory = GuestMemory::create(windows(1024 * kGiB), PageSize::k4);
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
