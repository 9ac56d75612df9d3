// CONFORMANCE F: DMA windows.
#include <cstring>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/protocol/check.h"
#include "tests/protocol/scripted_server.h"

namespace outboard::protocol_test {
namespace {

using Kind = Error::Kind;

TEST_CASE("C75 windows arrive as they are, none skipped, each with its file and offset") {
  const Steady steady;
  const UniqueFd ram = memory_file(1 << 20);
  std::vector<DmaWindow> windows;
  for (std::uint64_t i = 0; i < 5; ++i) {
    const std::uint64_t offset = i << 16;
    const char mark = static_cast<char>('a' + i);
    CHECK(::pwrite(ram.get(), &mark, 1, static_cast<off_t>(offset)) == 1);
    windows.push_back({i << 32, 1 << 16, ram.get(), offset, true, i % 2 == 0, {}});
  }
  Memory no_fd(0x7000'0000, 8192);
  windows.push_back(no_fd.window);
  std::string marks;
  Script script;
  script.twin = true;
  script.on[Command::dma_map] = [&](Peer& peer, Incoming& m) {
    const auto map = m.as<wire::DmaMap>();
    char mark = '-';
    if (!m.fds.empty())
      CHECK(::pread(m.fds[0].get(), &mark, 1, static_cast<off_t>(map.offset)) == 1);
    marks += mark;
    peer.reply(m.header);
  };
  ScriptedServer server(script);
  auto client = attached(server, quick_options(), windows);
  CHECK(marks == "abcde-");
  const auto sent = server.log_of(Command::dma_map);
  REQUIRE(sent.size() == 6);
  for (std::size_t i = 0; i < 6; ++i) {
    const auto map = sent[i].as<wire::DmaMap>();
    CHECK(map.argsz == 32);
    CHECK(map.flags == (windows[i].writable ? 3u : 1u));
    CHECK(map.address == windows[i].address);
    CHECK(map.size == windows[i].size);
    CHECK(map.offset == (i < 5 ? windows[i].file_offset : 0));
    CHECK(sent[i].fds == (i < 5 ? 1 : 0));
    CHECK(sent[i].payload.size() == 32);
  }
}

TEST_CASE(
    "C76 a window that does not fit the server's pgsizes is refused before anything is sent") {
  const Steady steady;
  const UniqueFd ram = memory_file(1 << 22);
  for (const bool huge : {false, true}) {
    Script script;
    if (huge) script.capabilities = R"("pgsizes":2097152)";
    ScriptedServer server(script);
    auto client = attached(server, quick_options());
    const std::uint64_t page = huge ? 2 << 20 : 4096;
    CHECK(client->dma_map({page, page, ram.get(), page, true, true, {}}));
    CHECK(client->dma_map({8 * page, 2 * page, -1, 0, true, true, {}}));
    Bytes view(page / 2);

    for (const DmaWindow& bad : {DmaWindow{4 * page + page / 2, page, ram.get(), 0, true, true, {}},
                                 DmaWindow{4 * page, page + page / 2, ram.get(), 0, true, true, {}},
                                 DmaWindow{4 * page, page, ram.get(), page / 2, true, true, {}},
                                 DmaWindow{4 * page, 0, ram.get(), 0, true, true, {}},
                                 DmaWindow{~page + 1, 2 * page, ram.get(), 0, true, true, {}},
                                 DmaWindow{4 * page, page, ram.get(), 0, false, false, {}},
                                 DmaWindow{page, page, ram.get(), 0, true, true, {}},
                                 DmaWindow{0, 4 * page, ram.get(), 0, true, true, {}},
                                 DmaWindow{9 * page, page, ram.get(), 0, true, true, {}},
                                 DmaWindow{4 * page, page, -1, 0, true, true, view}}) {
      CAPTURE(bad.address);
      CAPTURE(bad.size);
      const auto mapped = client->dma_map(bad);
      REQUIRE_FALSE(mapped);
      CHECK(mapped.error().kind == Kind::invalid);
    }
    CHECK(server.count_of(Command::dma_map) == 2);

    ScriptedServer other(script);
    auto fresh = other.connect(quick_options());
    REQUIRE(fresh);
    const DmaWindow windows[] = {{0, page, ram.get(), 0, true, true, {}},
                                 {4 * page, page, ram.get(), page / 2, true, true, {}}};
    CHECK_FALSE((*fresh)->attach(windows));
    CHECK(other.count_of(Command::dma_map) == 0);
  }
}

TEST_CASE("C77 more windows than max_dma_maps are refused, by name, and the server hears of none") {
  const Steady steady;
  const UniqueFd ram = memory_file(1 << 20);
  Script script;
  script.capabilities = R"("max_dma_maps":1)";
  ScriptedServer server(script);
  auto client = server.connect(quick_options());
  REQUIRE(client);
  const DmaWindow windows[] = {{0, 4096, ram.get(), 0, true, true, {}},
                               {8192, 4096, ram.get(), 0, true, true, {}}};
  const auto device = (*client)->attach(windows);
  REQUIRE_FALSE(device);
  CHECK(device.error().kind == Kind::limit);
  CHECK(device.error().message.find("max_dma_maps") != std::string::npos);
  CHECK(device.error().message.find("window 0x2000+0x1000") != std::string::npos);
  CHECK(server.count_of(Command::dma_map) == 0);
}

TEST_CASE(
    "C78 a rejected DMA_MAP fails the attach, names window and errno, and unmaps the others") {
  const Steady steady;
  const UniqueFd ram = memory_file(1 << 20);
  for (const int code : {EINVAL, EEXIST, ENOSPC, ENOMEM}) {
    Script script;
    script.on[Command::dma_map] = [code](Peer& peer, Incoming& m) {
      if (m.as<wire::DmaMap>().address == 0x4000) {
        peer.error(m.header, code);
      } else {
        peer.reply(m.header);
      }
    };
    ScriptedServer server(script);
    auto client = server.connect(quick_options());
    REQUIRE(client);
    const DmaWindow windows[] = {{0, 4096, ram.get(), 0, true, true, {}},
                                 {0x4000, 4096, ram.get(), 0, true, true, {}},
                                 {0x8000, 4096, ram.get(), 0, true, true, {}}};
    const auto device = (*client)->attach(windows);
    REQUIRE_FALSE(device);
    CHECK(device.error().code == code);
    CHECK(device.error().message.find("window 0x4000+0x1000") != std::string::npos);
    CHECK(device.error().message.find(::strerrorname_np(code)) != std::string::npos);
    const auto unmaps = server.log_of(Command::dma_unmap);
    REQUIRE(unmaps.size() == 2);
    CHECK(unmaps[0].as<wire::DmaUnmap>().address == 0);
    CHECK(unmaps[1].as<wire::DmaUnmap>().address == 0x8000);
  }
}

TEST_CASE("C78 an attach that fails later unmaps every window again") {
  const Steady steady;
  const UniqueFd ram = memory_file(1 << 20);
  const DmaWindow windows[] = {{0, 4096, ram.get(), 0, true, true, {}},
                               {0x8000, 4096, ram.get(), 0, true, true, {}}};
  for (const Command failing : {Command::device_get_info, Command::device_get_region_info,
                                Command::device_get_irq_info, Command::region_read}) {
    Script script;
    script.handle_config_reads = true;
    script.on[failing] = [](Peer& peer, Incoming& m) { peer.error(m.header, EIO); };
    ScriptedServer server(script);
    auto client = server.connect(quick_options());
    REQUIRE(client);
    CHECK_FALSE((*client)->attach(windows));
    CHECK(server.count_of(Command::dma_map) == 2);
    CHECK(server.count_of(Command::dma_unmap) == 2);
    const auto again = (*client)->attach(windows);
    REQUIRE_FALSE(again);
    CHECK(again.error().code == EALREADY);
  }
}

// Whether the server may still read the window at 0 of a client: asked from outside, through the
// event loop.
int read_window(ScriptedServer& server, Client& client) {
  const std::size_t before = server.count_of(Command::dma_read);
  const EventLoop loop(client);
  server.peer().request(9, Command::dma_read, bytes_of(wire::DmaAccess{0, 4}));
  REQUIRE(server.wait_for(Command::dma_read, before + 1));
  return static_cast<int>(server.log_of(Command::dma_read).back().header.error);
}

TEST_CASE("C79 a window is taken back by a reply of 24 bytes or of the header, and by no other") {
  const Steady steady;
  enum class How { full, header, error, never, other_address, other_size };
  for (const How how :
       {How::full, How::header, How::error, How::never, How::other_address, How::other_size}) {
    CAPTURE(static_cast<int>(how));
    Memory ram(0, 4096);
    Script script;
    script.on[Command::dma_unmap] = [how](Peer& peer, Incoming& m) {
      auto unmap = m.as<wire::DmaUnmap>();
      if (how == How::header) peer.reply(m.header);
      if (how == How::error) peer.error(m.header, ENOENT);
      if (how == How::other_address) unmap.address += 4096;
      if (how == How::other_size) unmap.size += 4096;
      if (how == How::full || how >= How::other_address) peer.reply(m.header, bytes_of(unmap));
    };
    ScriptedServer server(script);
    ClientOptions options = quick_options(10s);
    options.timeouts.dma = how == How::never ? 100ms : 10000ms;
    auto client = attached(server, options, {&ram.window, 1});
    CHECK_FALSE(client->dma_unmap(0, 8192));
    CHECK_FALSE(client->dma_unmap(4096, 4096));
    CHECK(server.count_of(Command::dma_unmap) == 0);
    CHECK(read_window(server, *client) == 0);
    const auto unmapped = client->dma_unmap(0, 4096);
    CHECK(unmapped.has_value() == (how <= How::header));
    CHECK(client->alive() == (how < How::other_address));
    if (!client->alive()) continue;
    // After an error or a time-out the server may use the window: so it can.
    CHECK(read_window(server, *client) == (unmapped ? EFAULT : 0));
    const auto sent = server.log_of(Command::dma_unmap);
    REQUIRE(sent.size() == 1);
    CHECK(sent[0].payload.size() == 24);
    CHECK(sent[0].as<wire::DmaUnmap>().argsz == 24);
    CHECK(sent[0].as<wire::DmaUnmap>().flags == 0);
  }
}

TEST_CASE(
    "a window that the server refused is none: DMA to it fails, and it can be offered again") {
  const Steady steady;
  Memory ram(0, 4096);
  int refusals = 1;
  Script script;
  script.on[Command::dma_map] = [&](Peer& peer, Incoming& m) {
    if (refusals-- > 0) {
      peer.error(m.header, ENOMEM);
    } else {
      peer.reply(m.header);
    }
  };
  ScriptedServer server(script);
  auto client = attached(server, quick_options());
  CHECK(client->dma_map(ram.window).error().code == ENOMEM);
  CHECK(read_window(server, *client) == EFAULT);
  CHECK(client->dma_map(ram.window));
  CHECK(read_window(server, *client) == 0);
}

TEST_CASE("a DMA_MAP without an answer is taken back; if that fails too the device is dead") {
  const Steady steady;
  for (const bool answers : {true, false}) {
    Memory ram(0, 4096);
    Script script;
    script.twin = true;
    script.on[Command::dma_map] = [](Peer&, Incoming&) {};
    if (!answers) script.on[Command::dma_unmap] = [](Peer&, Incoming&) {};
    ScriptedServer server(script);
    ClientOptions options = quick_options(10s);
    options.timeouts.dma = 50ms;
    options.timeouts_until_dead = 100;
    auto client = attached(server, options);
    const auto mapped = client->dma_map(ram.window);
    REQUIRE_FALSE(mapped);
    CHECK(mapped.error().kind == Kind::timeout);
    CHECK(server.count_of(Command::dma_unmap) == 1);
    CHECK(client->alive() == answers);
  }
}

TEST_CASE(
    "C81 what the server gets is the client's own sealed file: it can neither shrink nor grow it") {
  const Steady steady;
  const UniqueFd ram = memory_file(1 << 20);
  REQUIRE(::fcntl(ram.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
  Script script;
  script.on[Command::dma_map] = [](Peer& peer, Incoming& m) {
    CHECK(m.fds.size() == 1);
    if (m.fds.empty()) return;
    CHECK(::ftruncate(m.fds[0].get(), 0) != 0);
    CHECK(::ftruncate(m.fds[0].get(), 2 << 20) != 0);
    CHECK(::fcntl(m.fds[0].get(), F_ADD_SEALS, F_SEAL_WRITE) != 0);
    peer.reply(m.header);
  };
  ScriptedServer server(script);
  const DmaWindow window{0, 1 << 20, ram.get(), 0, true, true, {}};
  CHECK(attached(server, quick_options(), {&window, 1})->alive());
}

}  // namespace
}  // namespace outboard::protocol_test
