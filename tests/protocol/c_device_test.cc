// CONFORMANCE C: what a server says about its device.
#include <string>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/protocol/check.h"
#include "tests/protocol/scripted_server.h"

namespace outboard::protocol_test {
namespace {

using Kind = Error::Kind;
using vfio_user::DeviceDescription;

Result<DeviceDescription> attach_to(Script script) {
  ScriptedServer server(std::move(script));
  auto client = server.connect(quick_options(10s));
  REQUIRE(client);
  return (*client)->attach({});
}

// BAR2 as a device with this one region of pages shows it. The description, if the attach succeeds,
// outlives the server.
vfio_user::Region bar2_of(ScriptedRegion region) {
  Script script;
  script.regions[2] = std::move(region);
  auto device = attach_to(std::move(script));
  REQUIRE(device);
  return std::move(device->regions[2]);
}

constexpr std::uint32_t kPages =
    wire::kRegionReadable | wire::kRegionWritable | wire::kRegionMappable;

// GET_REGION_INFO for BAR2 answered by hand; the others as usual.
Script bar2_answers(std::function<void(Peer&, Incoming&, wire::RegionInfo)> answer) {
  Script script;
  script.on[Command::device_get_region_info] = [answer = std::move(answer)](Peer& peer,
                                                                            Incoming& m) {
    const auto ask = m.as<wire::RegionInfo>();
    if (ask.index == 2) return answer(peer, m, ask);
    const std::uint64_t size = ask.index == wire::kRegionConfig ? 256 : 0;
    peer.reply(m.header, bytes_of(wire::RegionInfo{32, 3, ask.index, 0, size, 0}));
  };
  return script;
}

TEST_CASE(
    "C35 a PCI device has 8 to 100 regions and at most 50 interrupt types; 9 and 5 of them are "
    "asked for") {
  const Steady steady;
  for (const std::uint32_t regions : {0u, 7u, 101u, 0xffffffffu}) {
    Script script;
    script.info.num_regions = regions;
    const auto device = attach_to(script);
    REQUIRE_FALSE(device);
    CHECK(device.error().message.find("DEVICE_GET_INFO") != std::string::npos);
  }
  for (const std::uint32_t regions : {8u, 9u, 100u}) {
    Script script;
    script.info.num_regions = regions;
    CHECK(attach_to(script).value().regions.size() == std::min(regions, 9u));
  }
  for (const std::uint32_t irqs : {0u, 4u, 5u, 50u}) {
    Script script;
    script.info.num_irqs = irqs;
    CHECK(attach_to(script).value().irqs.size() == std::min(irqs, 5u));
  }
  for (const std::uint32_t irqs : {51u, 0xffffffffu}) {
    Script script;
    script.info.num_irqs = irqs;
    CHECK_FALSE(attach_to(script));
  }
}

TEST_CASE(
    "C36 a device that is no PCI device is refused; one without the RESET flag is never reset") {
  const Steady steady;
  Script no_pci;
  no_pci.info.flags = wire::kDeviceResettable;
  const auto device = attach_to(no_pci);
  REQUIRE_FALSE(device);
  CHECK(device.error().message.find("PCI") != std::string::npos);
  for (const bool flag : {false, true}) {  // trap: the flag taken the wrong way round
    Script script;
    script.info.flags = wire::kDevicePci | (flag ? wire::kDeviceResettable : 0);
    ScriptedServer server(script);
    auto client = attached(server, quick_options());
    CHECK(client->reset());
    CHECK(server.count_of(Command::device_reset) == (flag ? 1 : 0));
  }
}

TEST_CASE(
    "C37 argsz: the first query has 32, a second only as much as the server wants, and no third") {
  const Steady steady;
  const UniqueFd file = memory_file(8192);
  const int fd = file.get();
  for (const std::uint32_t wanted : {0u, 31u, 32u, 33u, 96u, 1u << 31, 0xffffffffu}) {
    CAPTURE(wanted);
    std::vector<std::uint32_t> asked;
    auto device = attach_to(bar2_answers([&](Peer& peer, Incoming& m, wire::RegionInfo ask) {
      asked.push_back(ask.argsz);
      CHECK(m.payload.size() == 32);
      // Whatever it is given, it wants one more.
      peer.reply(m.header,
                 bytes_of(wire::RegionInfo{std::max(wanted, ask.argsz == 32 ? 0 : ask.argsz + 1),
                                           kPages, 2, 0, 8192, 0}),
                 {&fd, ask.argsz > 32 ? 1u : 0u});
    }));
    CHECK(device.has_value() == (wanted >= 32));
    CHECK(asked.front() == 32);
    CHECK(asked.size() == (wanted == 33 || wanted == 96 ? 2 : 1));
    if (asked.size() == 2) CHECK(asked[1] == wanted);
    if (!device) continue;
    CHECK_FALSE(device->regions[2].mappable);
    CHECK_FALSE(device->regions[2].trapped_because.empty());
  }
}

TEST_CASE("a region reply for another index is refused") {
  const Steady steady;
  const auto device = attach_to(bar2_answers([](Peer& peer, Incoming& m, wire::RegionInfo) {
    peer.reply(m.header, bytes_of(wire::RegionInfo{32, 3, 3, 0, 4096, 0}));
  }));
  REQUIRE_FALSE(device);
  CHECK(device.error().kind == Kind::protocol);
  const auto second = attach_to(bar2_answers([](Peer& peer, Incoming& m, wire::RegionInfo ask) {
    peer.reply(m.header,
               bytes_of(wire::RegionInfo{40, kPages, ask.argsz == 32 ? 2u : 3u, 0, 4096, 0}));
  }));
  REQUIRE_FALSE(second);
  CHECK(second.error().kind == Kind::protocol);
  Script script;

  script.on[Command::device_get_irq_info] = [](Peer& peer, Incoming& m) {
    peer.reply(m.header, bytes_of(wire::IrqInfo{16, 1, 3, 0}));
  };
  CHECK_FALSE(attach_to(script));
}

// BAR2 with this tail at this cap_offset.
vfio_user::Region bar2_with_chain(std::uint32_t cap_offset, const Bytes& tail) {
  const UniqueFd file = memory_file(1 << 20);
  const int fd = file.get();
  auto device = attach_to(bar2_answers([&](Peer& peer, Incoming& m, wire::RegionInfo ask) {
    const auto argsz = static_cast<std::uint32_t>(std::max<std::size_t>(33, 32 + tail.size()));
    wire::RegionInfo info{argsz, kPages, 2, 0, 1 << 20, 0};
    if (ask.argsz == 32) {
      peer.reply(m.header, bytes_of(info));
      return;
    }
    info.flags |= wire::kRegionCapabilities;
    info.cap_offset = cap_offset;
    peer.reply(m.header, bytes_of(info) + tail, {&fd, 1});
  }));
  REQUIRE(device);
  return std::move(device->regions[2]);
}

TEST_CASE(
    "C38 a capability offset of 0, inside the structure or beyond the reply leaves the region "
    "trapped") {
  const Steady steady;
  const Bytes tail = sparse_tail({{4096, 4096}});
  CHECK(bar2_with_chain(32, tail).mappable);
  for (const std::uint32_t offset : {8u, 31u, 33u, 64u, 0xffffffffu}) {
    CAPTURE(offset);
    const auto region = bar2_with_chain(offset, tail);
    CHECK_FALSE(region.mappable);
    CHECK_FALSE(region.trapped_because.empty());
  }
  // Some servers set the flag and the offset with no capability behind them: then it is the whole
  // region.
  const auto whole = bar2_with_chain(32, {});
  CHECK(whole.areas == std::vector<SparseArea>{{0, 1 << 20}});
}

TEST_CASE(
    "C39 a capability chain that loops, goes back or has 10000 links ends, and the region is "
    "trapped") {
  const Steady steady;
  const auto link = [](std::uint32_t next) {
    return bytes_of(wire::CapabilityHeader{99, 1, next});
  };
  CHECK_FALSE(bar2_with_chain(32, link(32)).mappable);
  CHECK_FALSE(bar2_with_chain(32, link(40) + link(32)).mappable);
  CHECK_FALSE(bar2_with_chain(40, link(0) + link(32)).mappable);
  CHECK_FALSE(bar2_with_chain(32, link(8)).mappable);
  CHECK_FALSE(bar2_with_chain(32, link(0xfffffff8) + Bytes(64)).mappable);
  Bytes many;
  for (std::uint32_t i = 0; i < 8000; ++i) many = std::move(many) + link(32 + (i + 1) * 8);
  CHECK_FALSE(bar2_with_chain(32, std::move(many) + link(0)).mappable);
}

TEST_CASE("C40 an unknown capability in front of the sparse one is skipped") {
  const Steady steady;
  const Bytes tail =
      bytes_of(wire::CapabilityHeader{77, 3, 48}) + Bytes(8) + sparse_tail({{8192, 4096}});
  const auto region = bar2_with_chain(32, tail);
  REQUIRE(region.mappable);
  CHECK(region.areas == std::vector<SparseArea>{{8192, 4096}});
}

TEST_CASE(
    "C41 an area count of 0, one that overflows, or one beyond the bytes present leaves the region "
    "trapped") {
  const Steady steady;
  for (const std::uint32_t count : {0u, 2u, 1u << 28, 0xffffffffu}) {
    CAPTURE(count);
    Bytes tail = sparse_tail({{4096, 4096}});
    __builtin_memcpy(tail.data() + 8, &count, sizeof count);
    const auto region = bar2_with_chain(32, tail);
    CHECK_FALSE(region.mappable);
    CHECK_FALSE(region.trapped_because.empty());
  }
}

TEST_CASE(
    "C42 an area that is empty, unaligned, outside, wrapping or overlapping leaves the region "
    "trapped") {
  const Steady steady;
  const UniqueFd file = memory_file(1 << 24);
  const std::uint64_t top = std::uint64_t{1} << 63;
  for (const auto& [areas, fault] : std::vector<std::pair<std::vector<SparseArea>, std::string>>{
           {{{4096, 0}}, "empty"},
           {{{100, 4096}}, "aligned"},
           {{{4096, 100}}, "aligned"},
           {{{1 << 16, 4096}}, "beyond"},
           {{{0xf000, 8192}}, "beyond"},
           {{{4096, ~std::uint64_t{4095}}}, "beyond"},
           {{{top, top}}, "beyond"},
           {{{0, 8192}, {4096, 4096}}, "overlaps"},
           {{{4096, 4096}, {4096, 4096}}, "overlaps"},
           {{{8192, 4096}, {0, 12288}}, "overlaps"}}) {
    CAPTURE(fault);
    const auto region = bar2_of({kPages, 1 << 16, 0, sparse_tail(areas), {file.get()}});
    CHECK_FALSE(region.mappable);
    CHECK(region.areas.empty());
    CHECK(region.fds.empty());
    CHECK(region.trapped_because.find(fault) != std::string::npos);
  }
  std::vector<SparseArea> many;
  for (std::uint64_t i = 0; i < 1000; ++i) many.push_back({i * 8192, 4096});
  const auto region = bar2_of({kPages, 1 << 24, 0, sparse_tail(many), {file.get()}});
  CHECK(region.areas.size() == 1000);
}

TEST_CASE("areas come sorted, each with the descriptor it came with") {
  const Steady steady;
  const UniqueFd first = memory_file(1 << 16);
  const UniqueFd second = memory_file(1 << 16);
  CHECK(::pwrite(first.get(), "1", 1, 0x8000) == 1);
  CHECK(::pwrite(second.get(), "2", 1, 0x2000) == 1);
  const auto region = bar2_of({kPages,
                               1 << 16,
                               0,
                               sparse_tail({{0x8000, 4096}, {0x2000, 4096}}),
                               {first.get(), second.get()}});
  REQUIRE(region.mappable);
  CHECK(region.areas == std::vector<SparseArea>{{0x2000, 4096}, {0x8000, 4096}});
  char byte = 0;
  CHECK(::pread(region.area_fd(0), &byte, 1, 0x2000) == 1);
  CHECK(byte == '2');
  CHECK(::pread(region.area_fd(1), &byte, 1, 0x8000) == 1);
  CHECK(byte == '1');
}

TEST_CASE(
    "C43 pages without a descriptor are trapped; descriptors without pages, or too early, are "
    "closed") {
  const Steady steady;
  const UniqueFd file = memory_file(1 << 16);
  const auto none = bar2_of({kPages, 1 << 16, 0, sparse_tail({{0, 4096}}), {}});
  CHECK_FALSE(none.mappable);
  CHECK(none.trapped_because.find("no file descriptor") != std::string::npos);
  const auto no_flag = bar2_of({3, 1 << 16, 0, {}, {file.get()}});
  CHECK_FALSE(no_flag.mappable);
  CHECK(no_flag.trapped_because.empty());
  // With the first query, which had no room for the areas: closed, and the second has none.
  const int fd = file.get();
  const auto early = attach_to(bar2_answers([&](Peer& peer, Incoming& m, wire::RegionInfo ask) {
    const Bytes tail = sparse_tail({{0, 4096}});
    wire::RegionInfo info{64, kPages, 2, 0, 1 << 16, 0};
    if (ask.argsz == 32) {
      peer.reply(m.header, bytes_of(info), {&fd, 1});
    } else {
      info.flags |= wire::kRegionCapabilities;
      info.cap_offset = 32;
      peer.reply(m.header, bytes_of(info) + tail);
    }
  }));
  REQUIRE(early);
  CHECK_FALSE(early->regions[2].mappable);
  // The whole region without any capability: one descriptor with the first reply is right.
  const auto whole = bar2_of({kPages, 1 << 16, 0, {}, {file.get()}});
  REQUIRE(whole.mappable);
  CHECK(whole.areas == std::vector<SparseArea>{{0, 1 << 16}});
}

TEST_CASE("C44 one descriptor for n areas, n for n, and n + 1 with the last one closed") {
  const Steady steady;
  const UniqueFd file = memory_file(1 << 16);
  const std::vector<SparseArea> areas = {{0, 4096}, {8192, 4096}, {0x8000, 4096}};
  for (const std::size_t count : {1u, 2u, 3u, 4u}) {
    CAPTURE(count);
    const std::vector<int> fds(count, file.get());
    const std::size_t before = open_fds();
    const auto region = bar2_of({kPages, 1 << 16, 0, sparse_tail(areas), fds});
    REQUIRE(region.mappable);
    CHECK(region.areas == areas);
    CHECK(region.fds.size() == (count < 3 ? 1 : 3));
    CHECK(open_fds() == before + region.fds.size());
    CHECK(region.area_fd(2) >= 0);
  }
}

TEST_CASE(
    "C45 a descriptor that cannot be mapped as the region is used leaves it trapped, with the "
    "reason") {
  const Steady steady;
  const UniqueFd file = memory_file(1 << 16);
  const std::string link = "/proc/self/fd/" + std::to_string(file.get());
  const UniqueFd read_only(::open(link.c_str(), O_RDONLY | O_CLOEXEC));
  const UniqueFd write_only(::open(link.c_str(), O_WRONLY | O_CLOEXEC));
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const UniqueFd pipe(ends[0]);
  const UniqueFd pipe_end(ends[1]);
  const UniqueFd directory(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const UniqueFd zero(::open("/dev/zero", O_RDWR | O_CLOEXEC));
  const UniqueFd process(::open("/proc/self/status", O_RDONLY | O_CLOEXEC));
  const UniqueFd huge(::memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB));
  const UniqueFd shorter = memory_file(4096);
  const UniqueFd sealed = memory_file(1 << 16);
  REQUIRE(::fcntl(sealed.get(), F_ADD_SEALS, F_SEAL_WRITE) == 0);
  for (const auto& [fd, reason] : {std::pair<int, std::string>{read_only.get(), "not open for"},
                                   {write_only.get(), "not open for"},
                                   {pipe.get(), "no regular file"},
                                   {directory.get(), "no regular file"},
                                   {zero.get(), "no regular file"},
                                   {process.get(), "may be late"},
                                   {shorter.get(), "needs"},
                                   {sealed.get(), "sealed"}}) {
    CAPTURE(reason);
    const auto region = bar2_of({kPages, 1 << 16, 0, sparse_tail({{4096, 4096}}), {fd}});
    CHECK_FALSE(region.mappable);
    CHECK(region.trapped_because.find(reason) != std::string::npos);
  }
  // A part of a huge page cannot be mapped; not every kernel has them.
  if (huge && ::ftruncate(huge.get(), 2 << 20) == 0) {
    const auto part = bar2_of({kPages, 1 << 16, 0, sparse_tail({{4096, 4096}}), {huge.get()}});
    CHECK(part.trapped_because.find("not page aligned in its file") != std::string::npos);
  }
  // A region that the guest may only read needs no more than that.
  const auto readable = bar2_of({5, 1 << 16, 0, sparse_tail({{4096, 4096}}), {read_only.get()}});
  CHECK(readable.mappable);
}

TEST_CASE("C46 a file offset that is unaligned or beyond any file leaves the region trapped") {
  const Steady steady;
  const UniqueFd file = memory_file(1 << 16);
  const auto good = bar2_of({kPages, 1 << 14, 0x4000, sparse_tail({{4096, 4096}}), {file.get()}});
  REQUIRE(good.mappable);
  CHECK(good.file_offset == 0x4000);
  for (const std::uint64_t offset : {std::uint64_t{100}, std::uint64_t{1} << 63,
                                     ~std::uint64_t{0} - 4095, std::uint64_t{0xf000}}) {
    CHECK_FALSE(
        bar2_of({kPages, 1 << 14, offset, sparse_tail({{4096, 4096}}), {file.get()}}).mappable);
  }
}

TEST_CASE(
    "C47 regions of any size are described as they are; configuration space is read up to 4 KiB") {
  const Steady steady;
  for (const std::uint64_t size :
       {std::uint64_t{0x3000}, std::uint64_t{1}, std::uint64_t{1} << 40, std::uint64_t{1} << 63}) {
    CHECK(bar2_of({3, size, 0, {}, {}}).size == size);
  }
  const UniqueFd file = memory_file(1 << 16);
  const auto huge = bar2_of({kPages, std::uint64_t{1} << 63, 0, {}, {file.get()}});
  CHECK_FALSE(huge.mappable);  // the whole of it is no area of this file
  for (const std::uint64_t size : {0u, 64u, 256u, 4096u, 8192u}) {
    Script script;
    script.regions[wire::kRegionConfig].size = size;
    const auto device = attach_to(script);
    REQUIRE(device);
    CHECK(device->config.size() == std::min<std::uint64_t>(size, 4096));
  }
}

TEST_CASE("a reply to the read of the configuration space that is for another range is refused") {
  const Steady steady;
  struct Case {
    wire::RegionAccess access;
    std::size_t data;
    bool right;
  };
  for (const Case& c : {Case{{0, 7, 256}, 256, true}, Case{{4, 7, 256}, 256, false},
                        Case{{0, 6, 256}, 256, false}, Case{{0, 7, 255}, 255, false},
                        Case{{0, 7, 256}, 255, false}, Case{{0, 7, 257}, 257, false}}) {
    Script script;
    script.handle_config_reads = true;
    script.on[Command::region_read] = [&](Peer& peer, Incoming& m) {
      peer.reply(m.header, bytes_of(c.access) + Bytes(c.data));
    };
    const auto device = attach_to(script);
    CHECK(device.has_value() == c.right);
    if (!device) CHECK(device.error().kind == Kind::protocol);
  }
}

TEST_CASE("an area that is aligned in its file and not in its region is trapped") {
  const Steady steady;
  const UniqueFd file = memory_file(1 << 16);
  const auto region =
      bar2_of({kPages, 1 << 14, 4096 - 100, sparse_tail({{100, 4096}}), {file.get()}});
  CHECK_FALSE(region.mappable);
}

TEST_CASE(
    "an attach takes at most 4 dependent round trips, VERSION included, and asks everything at "
    "once") {
  const Steady steady;
  const UniqueFd file = memory_file(1 << 20);
  std::vector<DmaWindow> windows;
  for (std::uint64_t i = 0; i < 8; ++i)
    windows.push_back({i << 16, 1 << 16, file.get(), i << 16, true, true, {}});
  Script script;
  script.regions[0] = {kPages, 1 << 16, 0, sparse_tail({{4096, 4096}}), {file.get()}};
  script.regions[2] = {kPages, 1 << 16, 0, sparse_tail({{4096, 4096}}), {file.get()}};
  script.regions[4] = {wire::kRegionReadable | wire::kRegionWritable, 4096, 0, {}, {}};
  // Each stage is answered only when all of it has come: a client that waits in between never gets
  // on.
  ScriptedServer* behind = nullptr;
  std::vector<Incoming> waiting;
  const auto hold_until = [&](std::size_t count) {
    return [&, count](Peer& peer, Incoming& m) {
      waiting.push_back(std::move(m));
      if (waiting.size() < count) return;
      for (Incoming& message : waiting) behind->behave(peer, message);
      waiting.clear();
    };
  };
  script.on[Command::dma_map] = hold_until(9);
  script.on[Command::device_get_info] = hold_until(9);
  script.irqs[wire::kIrqErr] = {wire::kIrqEventfd, 1};
  script.irqs[wire::kIrqReq] = {wire::kIrqEventfd, 1};
  std::size_t stage = 14;  // 9 regions and 5 interrupts; then 2 regions again, the configuration
                           // space, the ioeventfds of BAR4, which has no pages, ERR and REQ
  const auto queries = [&](Peer& peer, Incoming& m) {
    waiting.push_back(std::move(m));
    if (waiting.size() < stage) return;
    for (Incoming& message : waiting) behind->behave(peer, message);
    waiting.clear();
    stage = 6;
  };
  script.on[Command::device_get_region_info] = queries;
  script.on[Command::device_get_irq_info] = queries;
  script.on[Command::region_read] = queries;
  script.on[Command::device_get_region_io_fds] = queries;
  script.on[Command::device_set_irqs] = queries;
  script.handle_first_io_fds = true;
  script.handle_config_reads = true;
  ScriptedServer server(script);
  behind = &server;
  auto client = server.connect(quick_options(5s));
  REQUIRE(client);
  const UniqueFd signal(::eventfd(0, EFD_CLOEXEC));
  const vfio_user::SignalFd signals[] = {{wire::kIrqErr, signal.get()},
                                         {wire::kIrqReq, signal.get()}};
  const auto device = (*client)->attach(windows, signals);
  REQUIRE(device);
  CHECK(device->round_trips == 3);
  CHECK((*client)->counters().round_trips == 1 + 9 + 14 + 6);
  CHECK((*client)->counters().dependent_round_trips == 4);  // with VERSION
  CHECK(device->regions[2].mappable);
  CHECK(device->irqs[wire::kIrqErr].armed);
  CHECK(device->irqs[wire::kIrqReq].armed);
  CHECK(server.log().size() == 1 + 9 + 14 + 6);
  for (const Logged& entry : server.log_of(Command::device_set_irqs)) CHECK(entry.fds == 1);
}

TEST_CASE("a server that refuses to arm ERR and REQ, or has none, is attached all the same") {
  const Steady steady;
  const UniqueFd signal(::eventfd(0, EFD_CLOEXEC));
  const vfio_user::SignalFd signals[] = {{wire::kIrqErr, signal.get()},
                                         {wire::kIrqReq, signal.get()}};
  Script script;
  script.irqs[wire::kIrqErr] = {wire::kIrqEventfd, 1};
  script.irqs[wire::kIrqReq] = {0, 1};  // no eventfd
  script.on[Command::device_set_irqs] = [](Peer& peer, Incoming& m) {
    peer.error(m.header, EPERM);
  };
  ScriptedServer server(script);
  auto client = server.connect(quick_options());
  REQUIRE(client);
  const auto device = (*client)->attach({}, signals);
  REQUIRE(device);
  CHECK_FALSE(device->irqs[wire::kIrqErr].armed);
  CHECK(device->irqs[wire::kIrqErr].refused.find("SET_IRQS") != std::string::npos);
  CHECK_FALSE(device->irqs[wire::kIrqReq].armed);
  CHECK(device->irqs[wire::kIrqReq].refused.empty());
  CHECK(server.count_of(Command::device_set_irqs) == 1);
}

}  // namespace
}  // namespace outboard::protocol_test
