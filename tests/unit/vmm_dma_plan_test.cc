// Least DMA (issue 5, item 8): who gets which windows of guest memory, and what a descriptor is
// good for.
#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/protocol/check.h"
#include "tests/protocol/scripted_server.h"
#include "vmm/dma_plan.h"

using namespace outboard;
using namespace outboard::vmm;
using namespace outboard::protocol_test;

namespace {

constexpr auto kReadOnly = DmaAccess::read_only;
constexpr auto kReadWrite = DmaAccess::read_write;

// 3 GiB below the PCI hole, 1 GiB above it.
const std::vector<RamWindow> kRam = {{0, 3 * kGiB, 0}, {4 * kGiB, kGiB, 3 * kGiB}};
const std::vector<RamWindow> kSmallRam = {{0, 64 * kMiB, 0}};

DeviceConfig with(std::vector<DmaRange> ranges) {
  DeviceConfig device;
  device.dma = std::move(ranges);
  return device;
}

std::string text_of(const std::vector<RamWindow>& ram, const std::vector<DeviceConfig>& devices,
                    std::size_t device) {
  return dma_text(plan_windows(ram, plan_files(ram, devices), devices[device].dma));
}

GuestMemory memory_for(const std::vector<DeviceConfig>& devices) {
  auto memory = GuestMemory::create(kSmallRam, PageSize::k4, plan_files(kSmallRam, devices));
  REQUIRE_MESSAGE(memory, memory.error().message);
  return std::move(*memory);
}

std::uint64_t size_of(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 ? static_cast<std::uint64_t>(status.st_size) : 0;
}

// The errno of mapping the file so that it can be written to; 0 when that can be done.
int maps_writable(int fd) {
  void* at = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return errno;
  ::munmap(at, 4096);
  return 0;
}

int reopens_writable(int fd) {
  const UniqueFd again(::open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDWR | O_CLOEXEC));
  return again ? maps_writable(again.get()) : errno;
}

}  // namespace

TEST_CASE("least DMA: where every device may use all of memory it is one file, in two windows") {
  const std::vector<DeviceConfig> devices(2);
  const auto files = plan_files(kRam, devices);
  REQUIRE(files.size() == 1);
  CHECK(files[0].size == 4 * kGiB);
  CHECK(files[0].writable);
  CHECK_FALSE(files[0].read_only);
  CHECK(text_of(kRam, devices, 1) == "0x0 +3G read-write, 0x100000000 +1G read-write");
  CHECK(plan_windows(kRam, files, devices[0].dma)[1].file_offset == 3 * kGiB);
}

TEST_CASE("least DMA: memory that not all may use alike is a file of its own, for each its own") {
  const std::vector<DeviceConfig> devices = {
      with({{}}),
      with({{4 * kGiB, 64 * kMiB, kReadOnly}, {64 * kMiB, 32 * kMiB}, {96 * kMiB, 32 * kMiB}}),
      with({}), with({{.access = kReadOnly}})};
  const auto files = plan_files(kRam, devices);
  REQUIRE(files.size() == 5);  // before, the two ranges as one, from there to 4 GiB, range, rest
  std::uint64_t end = 0;
  for (const FilePlan& file : files) {
    CHECK(file.offset == end);
    CHECK(file.writable);
    CHECK(file.read_only);
    end += file.size;
  }
  CHECK(end == 4 * kGiB);
  CHECK(files[1].offset == 64 * kMiB);
  CHECK(files[1].size == 64 * kMiB);
  CHECK(text_of(kRam, devices, 0) ==
        "0x0 +64M read-write, 0x4000000 +64M read-write, 0x8000000 +2944M read-write, 0x100000000 "
        "+64M read-write, 0x104000000 +960M read-write");
  CHECK(text_of(kRam, devices, 1) == "0x4000000 +64M read-write, 0x100000000 +64M read-only");
  CHECK(text_of(kRam, devices, 2) == "none");
  CHECK(text_of(kRam, devices, 3).find("read-write") == std::string::npos);
}

TEST_CASE("least DMA: a file that a device may use only in part is not given to it") {
  const std::vector<FilePlan> one = {{.offset = 0, .size = 4 * kGiB}};
  const std::vector<DmaRange> part = {{0, 64 * kMiB, kReadWrite}};
  CHECK(dma_text(plan_windows(kRam, one, part)) == "0x0 +64M read-write (by messages)");
}

TEST_CASE("least DMA: ranges that cannot be had are refused with the reason") {
  const auto fault = [](std::vector<DmaRange> ranges, std::uint64_t unit = 2 * kMiB) {
    return dma_fault(ranges, kRam, unit).value_or("");
  };
  CHECK(fault({{0, 3 * kGiB}, {4 * kGiB, kGiB, kReadOnly}}).empty());
  CHECK(fault({}).empty());
  CHECK(fault({{0x100000, 2 * kMiB}}) ==
        "the range 0x100000 +0x200000 must begin and end at multiples of 2M: servers map whole "
        "huge pages");
  CHECK(fault({{0, kMiB}}).find("multiples of 2M") != std::string::npos);
  CHECK(fault({{0, 2 * kMiB}}, kGiB).find("multiples of 1G") != std::string::npos);
  CHECK(fault({{0, 0}}).find("is empty") != std::string::npos);
  CHECK(fault({{2 * kGiB, 2 * kGiB}}) ==
        "the range 0x80000000 +0x80000000 is not all guest memory, which is 0x0 +3G and "
        "0x100000000 +1G");
  CHECK(fault({{3 * kGiB, 2 * kMiB}}).find("is not all guest memory") != std::string::npos);
  CHECK(fault({{5 * kGiB, 2 * kMiB}}).find("is not all guest memory") != std::string::npos);
  CHECK(fault({{~0ULL - 2 * kMiB + 1, 2 * kMiB}}).find("is not all") != std::string::npos);
  CHECK(fault({{0, ~0ULL - 2 * kMiB + 1}}).find("is not all") != std::string::npos);
  CHECK(fault({{4 * kMiB, 4 * kMiB}, {0, 4 * kMiB + 2 * kMiB}})
            .find("overlaps the one at 0x400000") != std::string::npos);
  CHECK(fault(std::vector<DmaRange>(65)).find("64 are the most") != std::string::npos);
}

TEST_CASE("least DMA: a file that no device may write to cannot be written to by anybody") {
  const auto memory = memory_for({with({{.access = kReadOnly}})});
  std::memcpy(memory.at(0, 4).data(), "mark", 4);  // the guest can
  for (const int fd : {memory.read_only_fd(0), memory.fd(0)}) {
    REQUIRE(fd >= 0);
    CHECK(maps_writable(fd) != 0);
    CHECK(::write(fd, "x", 1) < 0);
    CHECK(reopens_writable(fd) != 0);  // also for root
  }
  std::array<char, 4> seen{};
  REQUIRE(::pread(memory.read_only_fd(0), seen.data(), 4, 0) == 4);
  CHECK(std::memcmp(seen.data(), "mark", 4) == 0);
  CHECK(memory.populate(1));
}

TEST_CASE("least DMA: beside a device that writes, the other's descriptor cannot be mapped so") {
  const auto memory = memory_for({with({{}}), with({{.access = kReadOnly}})});
  CHECK(maps_writable(memory.fd(0)) == 0);
  const int fd = memory.read_only_fd(0);
  REQUIRE(fd >= 0);
  CHECK(maps_writable(fd) == EACCES);
  CHECK(::write(fd, "x", 1) < 0);
  struct stat status {};
  REQUIRE(::fstat(fd, &status) == 0);
  CHECK((status.st_mode & 0377) == 0);  // nobody may open it for writing but root
}

TEST_CASE("least DMA: a server gets exactly its windows, and no descriptor reaches beyond them") {
  const Steady steady;
  const std::vector<DeviceConfig> devices = {
      with({{16 * kMiB, 16 * kMiB, kReadOnly}, {48 * kMiB, 2 * kMiB}}), with({{}})};
  const auto memory = memory_for(devices);
  struct Got {
    wire::DmaMap map;
    std::uint64_t file_size;
    int writable_error;
  };
  std::vector<Got> got;
  Script script;
  script.on[Command::dma_map] = [&](Peer& peer, Incoming& m) {
    const int fd = m.fds.empty() ? -1 : m.fds[0].get();
    got.push_back({m.as<wire::DmaMap>(), size_of(fd), maps_writable(fd)});
    peer.reply(m.header);
  };
  {
    ScriptedServer server(script);
    auto client = attached(server, quick_options(), dma_windows(memory, devices[0].dma));
  }
  REQUIRE(got.size() == 2);
  CHECK(got[0].map.address == 16 * kMiB);
  CHECK(got[0].map.size == 16 * kMiB);
  CHECK(got[0].map.flags == wire::kDmaReadable);
  CHECK(got[0].map.offset == 0);
  CHECK(got[0].file_size == 16 * kMiB);
  CHECK(got[0].writable_error != 0);
  CHECK(got[1].map.address == 48 * kMiB);
  CHECK(got[1].map.size == 2 * kMiB);
  CHECK(got[1].map.flags == (wire::kDmaReadable | wire::kDmaWritable));
  CHECK(got[1].map.offset == 0);
  CHECK(got[1].file_size == 2 * kMiB);
  CHECK(got[1].writable_error == 0);
}

TEST_CASE("least DMA: DMA messages outside of the windows, or writing to a read-only one, fail") {
  const Steady steady;
  const auto ranges =
      std::vector<DmaRange>{{16 * kMiB, 16 * kMiB, kReadOnly}, {32 * kMiB, 2 * kMiB}};
  const auto memory = memory_for({with(ranges)});
  ScriptedServer server{Script{}};
  auto client = attached(server, quick_options(), dma_windows(memory, ranges));
  const auto ask = [&](Command command, std::uint64_t address) {
    Bytes payload = bytes_of(wire::DmaAccess{address, 4});
    if (command == Command::dma_write) payload = payload + text_bytes("DMA!", false);
    const std::size_t before = server.count_of(command);
    server.peer().request(9, command, payload);
    REQUIRE(server.wait_for(command, before + 1));
    return static_cast<int>(server.log_of(command).back().header.error);
  };
  const EventLoop loop(*client);
  CHECK(ask(Command::dma_read, 16 * kMiB) == 0);
  CHECK(ask(Command::dma_write, 16 * kMiB) == EPERM);
  CHECK(ask(Command::dma_write, 32 * kMiB) == 0);
  CHECK(ask(Command::dma_write, 32 * kMiB - 2) == EPERM);  // across the edge: nothing is written
  for (const std::uint64_t outside : {std::uint64_t{0}, 16 * kMiB - 4, 34 * kMiB - 2, 34 * kMiB}) {
    CHECK(ask(Command::dma_read, outside) == EFAULT);
    CHECK(ask(Command::dma_write, outside) == EFAULT);
  }
  CHECK(std::memcmp(memory.at(32 * kMiB, 4).data(), "DMA!", 4) == 0);
  for (const std::uint64_t untouched : {16 * kMiB, 32 * kMiB - 4, 34 * kMiB - 4, 34 * kMiB}) {
    std::uint32_t value = 1;
    std::memcpy(&value, memory.at(untouched, 4).data(), 4);
    CHECK(value == 0);
  }
}
