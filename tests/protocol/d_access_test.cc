// CONFORMANCE D: region accesses, posted and coalesced writes.
#include <future>
#include <string>

#include <sys/socket.h>

#include "tests/protocol/check.h"
#include "tests/protocol/scripted_server.h"
#include "vfio_user/transport.h"

namespace outboard::protocol_test {
namespace {

using Kind = Error::Kind;
using vfio_user::Write;

Script reads(std::function<void(Peer&, Incoming&, wire::RegionAccess)> answer) {
  Script script;
  script.on[Command::region_read] = [answer = std::move(answer)](Peer& peer, Incoming& m) {
    answer(peer, m, m.as<wire::RegionAccess>());
  };
  return script;
}

TEST_CASE(
    "C51 a reply with fewer bytes is a partial read; more bytes or another place kill the device") {
  const Steady steady;
  struct Case {
    std::uint32_t count;
    std::size_t data;
    std::uint64_t offset;
    std::uint32_t region;
    std::optional<std::size_t> read;
  };
  for (const Case& c : {Case{4, 4, 8, 0, 4},
                        {2, 2, 8, 0, 2},
                        {0, 0, 8, 0, 0},
                        {5, 5, 8, 0, {}},
                        {0xffffffff, 4, 8, 0, {}},
                        {4, 3, 8, 0, {}},
                        {4, 0, 8, 0, {}},
                        {4, 4, 9, 0, {}},
                        {4, 4, 8, 1, {}}}) {
    CAPTURE(c.count);
    CAPTURE(c.data);
    ScriptedServer server(reads([&](Peer& peer, Incoming& m, wire::RegionAccess) {
      peer.reply(m.header, bytes_of(wire::RegionAccess{c.offset, c.region, c.count}) +
                               Bytes(c.data, std::byte{9}));
    }));
    auto client = attached(server, quick_options(20s));
    std::array<std::byte, 4> data{};
    const auto got = client->region_read(0, 8, data);
    if (c.read) {
      REQUIRE(got);
      CHECK(*got == *c.read);
      CHECK(client->alive());
      CHECK((data[3] == std::byte{9}) == (*c.read == 4));
    } else {
      REQUIRE_FALSE(got);
      CHECK(got.error().kind == Kind::protocol);
      CHECK_FALSE(client->alive());
    }
  }
}

TEST_CASE("C51 a write reply for another place kills the device, one for fewer bytes is an error") {
  const Steady steady;
  for (const auto& [access, alive] : {std::pair{wire::RegionAccess{8, 0, 4}, true},
                                      {{8, 0, 2}, true},
                                      {{8, 0, 5}, false},
                                      {{9, 0, 4}, false},
                                      {{8, 1, 4}, false}}) {
    Script script;
    script.on[Command::region_write] = [access = access](Peer& peer, Incoming& m) {
      peer.reply(m.header, bytes_of(access));
    };
    ScriptedServer server(script);
    auto client = attached(server, quick_options(20s));
    const auto done = client->region_write(0, 8, Bytes(4));
    CHECK(done.has_value() == (access.offset == 8 && access.region == 0 && access.count == 4));
    CHECK(client->alive() == alive);
  }
}

TEST_CASE("C52 an error to a read or write is that access's error; the device goes on") {
  const Steady steady;
  Script script =
      reads([](Peer& peer, Incoming& m, wire::RegionAccess) { peer.error(m.header, EINVAL); });
  script.on[Command::region_write] = [](Peer& peer, Incoming& m) { peer.error(m.header, EPERM); };
  ScriptedServer server(script);
  auto client = attached(server, quick_options());
  std::array<std::byte, 4> data{};
  const auto got = client->region_read(0, 0x1c, data);
  REQUIRE_FALSE(got);
  CHECK(got.error().message ==
        "dut: REGION_READ of 4 bytes at BAR0+0x1c: the server answered EINVAL (Invalid argument)");
  const auto done = client->region_write(7, 4, data);
  REQUIRE_FALSE(done);
  CHECK(done.error().message.find("config space+0x4") != std::string::npos);
  CHECK(done.error().message.find("EPERM") != std::string::npos);
  CHECK(client->alive());
}

TEST_CASE("C53 accesses of 1, 2, 4 and 8 bytes are one message of that width each") {
  const Steady steady;
  ScriptedServer server{Script()};
  auto client = attached(server, quick_options());
  std::size_t messages = 0;
  for (const std::size_t width : {1u, 2u, 4u, 8u, 3u}) {
    Bytes data(width, static_cast<std::byte>(width));
    for (const Write how : {Write::wait, Write::may_post}) {
      CHECK(client->region_write(0, 0x100 + width, data, how));
    }
    Bytes back(width);
    CHECK(client->region_read(0, 0x100 + width, back).value_or(0) == width);
    CHECK(back == data);
    const auto sent = server.log_of(Command::region_write);
    messages += 2;
    REQUIRE(sent.size() == messages);
    for (std::size_t i = messages - 2; i < messages; ++i) {
      CHECK(sent[i].payload.size() == 16 + width);
      CHECK(sent[i].as<wire::RegionAccess>().count == width);
      CHECK(sent[i].as<wire::RegionAccess>().offset == 0x100 + width);
    }
    CHECK(server.log_of(Command::region_read).back().as<wire::RegionAccess>().count == width);
  }
}

TEST_CASE(
    "C55 a transfer above the server's max_data_xfer_size is cut into pieces of it, in order") {
  const Steady steady;
  Script script;
  script.capabilities = R"("max_data_xfer_size":4096)";
  script.regions[0].size = 1 << 16;
  ScriptedServer server(script);
  auto client = attached(server, quick_options());
  Bytes data(10000);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 7);
  CHECK(client->region_write(0, 100, data));
  Bytes back(10000);
  CHECK(client->region_read(0, 100, back).value_or(0) == 10000);
  CHECK(back == data);
  for (const Command command : {Command::region_read, Command::region_write}) {
    std::uint64_t next = 100;
    for (const Logged& entry : server.log_of(command)) {
      const auto access = entry.as<wire::RegionAccess>();
      if (access.region != 0) continue;
      CHECK(access.offset == next);
      CHECK(access.count <= 4096);
      next += access.count;
    }
    CHECK(next == 10100);
  }
}

TEST_CASE(
    "a register wider than max_data_xfer_size, and any place outside a region, is refused with no "
    "message") {
  const Steady steady;
  Script script;
  script.capabilities = R"("max_data_xfer_size":4)";
  script.regions[1] = {0, 4096, 0, {}, {}};  // neither readable nor writable
  ScriptedServer server(script);
  auto client = attached(server, quick_options());
  const std::size_t before = server.log().size();
  Bytes data(8);
  CHECK(client->region_read(0, 0, data).error().kind == Kind::limit);
  CHECK(client->region_write(0, 0, data).error().kind == Kind::limit);
  const std::span<std::byte> four = std::span(data).first(4);
  CHECK(client->region_read(9, 0, four).error().code ==
        EINVAL);  // trap: > for >= on a region index
  CHECK(client->region_write(9, 0, four).error().code == EINVAL);
  CHECK(client->region_read(8, 0, four).error().code == EINVAL);  // of size 0
  CHECK(client->region_read(0, 4093, four).error().code == EINVAL);
  CHECK(client->region_read(0, ~std::uint64_t{0} - 1, four).error().code == EINVAL);
  CHECK(client->region_read(0, 0, {}).error().code == EINVAL);
  CHECK(client->region_read(0, 4092, four).value_or(0) == 4);
  // Without the flags: all ones and nothing.
  CHECK(client->region_read(1, 0, four).value_or(0) == 4);
  CHECK(four[0] == std::byte{0xff});
  CHECK(client->region_write(1, 0, four));
  CHECK(server.log().size() == before + 1);
}

// How many writes to BAR0 a server sees as posted when each of 20 may be.
std::size_t posted_of(Script script, ClientOptions options, std::uint32_t region = 0,
                      const std::function<void(Client&)>& first = {}, bool dma_first = false,
                      std::span<const DmaWindow> windows = {}) {
  ScriptedServer server(std::move(script));
  auto client = attached(server, std::move(options), windows);
  if (first) first(*client);
  if (dma_first) {
    server.peer().request(1, Command::dma_read, bytes_of(wire::DmaAccess{0, 4}));
    Bytes data(4);
    CHECK(client->region_read(0, 0, data));  // the request came in before its reply
  }

  for (int i = 0; i < 20; ++i) CHECK(client->region_write(region, 4, Bytes(4), Write::may_post));
  Bytes data(4);
  CHECK(client->region_read(region, 0, data));
  std::size_t posted = 0;
  std::size_t all = 0;
  for (const Logged& entry : server.log_of(Command::region_write)) {
    ++all;
    posted += (entry.header.flags & wire::kNoReply) != 0 ? 1 : 0;
  }
  CHECK(all == 20);
  return posted;
}

TEST_CASE(
    "C57 posted writes go to no configuration space and to no device with a page or an ioeventfd") {
  const Steady steady;
  CHECK(posted_of(Script(), quick_options()) == 20);
  CHECK(posted_of(Script(), quick_options(), wire::kRegionConfig) == 0);

  ClientOptions off = quick_options();
  off.posted_writes = vfio_user::Posting::off;
  CHECK(posted_of(Script(), off) == 0);

  const UniqueFd file = memory_file(8192);
  Script pages;
  pages.regions[2] = {7, 8192, 0, sparse_tail({{4096, 4096}}), {file.get()}};
  CHECK(posted_of(pages, quick_options()) == 0);
  Script trapped = pages;  // offers pages, but none that can be mapped
  trapped.regions[2].fds.clear();
  CHECK(posted_of(trapped, quick_options()) == 20);

  Script ioeventfd;
  ioeventfd.on[Command::device_get_region_io_fds] = [&](Peer& peer, Incoming& m) {
    const int fd = file.get();
    peer.reply(
        m.header,
        bytes_of(wire::RegionIoFds{56, 0, 0, 1}) + bytes_of(wire::IoFdEntry{0, 4, 0, 0, 0, 0, 0}),
        {&fd, 1});
  };
  CHECK(posted_of(ioeventfd, quick_options(), 0,
                  [](Client& c) { CHECK(c.region_io_fds(0).value().size() == 1); }) == 0);

  // A DMA message on the main socket of a server with a twin socket is no reason to hold back.
  Script twin;
  twin.twin = true;
  CHECK(posted_of(
            twin, quick_options(), 0, [](Client&) {}, true) == 20);

  Memory ram(0, 4096);  // single flight: no twin socket and a window without an fd
  CHECK(posted_of(Script(), quick_options(), 0, [&](Client& c) { CHECK(c.dma_map(ram.window)); }) ==
        0);
  CHECK(posted_of(Script(), quick_options(), 0, {}, false, {&ram.window, 1}) == 0);
}

TEST_CASE("C58 a server that answers a write that wanted no reply is tolerated") {
  const Steady steady;
  Script script;
  script.on[Command::region_write] = [](Peer& peer, Incoming& m) {
    peer.reply(m.header, bytes_of(m.as<wire::RegionAccess>()));
  };
  ScriptedServer server(script);
  auto client = attached(server, quick_options());
  Bytes data(4);
  for (int i = 0; i < 100; ++i) {
    CHECK(client->region_write(0, 0, data, Write::may_post));
    CHECK(client->region_read(0, 0, data).value_or(0) == 4);
  }
  CHECK(client->alive());
  CHECK(client->counters().late_replies >= 99);
}

TEST_CASE(
    "C59 a read after 10000 posted writes sees the last; an error to a posted write is invisible") {
  const Steady steady;
  int count = 0;
  Script script;
  script.on[Command::region_write] = [&](Peer& peer, Incoming& m) {
    if (++count % 1000 == 0) peer.error(m.header, EIO);
  };
  ScriptedServer* model = nullptr;
  script.on[Command::region_read] = [&](Peer& peer, Incoming& m) {
    peer.reply(m.header, bytes_of(m.as<wire::RegionAccess>()) + bytes_of(count));
  };
  ScriptedServer server(script);
  model = &server;
  static_cast<void>(model);
  auto client = attached(server, quick_options(60s));
  for (std::uint32_t i = 0; i < 10000; ++i) {
    CHECK(client->region_write(0, 0, bytes_of(i), Write::may_post));
  }
  Bytes data(4);
  CHECK(client->region_read(0, 0, data).value_or(0) == 4);
  CHECK(struct_at<int>(data) == 10000);
  CHECK(client->alive());
}

struct Stalled {
  explicit Stalled(const std::string& capabilities) : open(gate.get_future().share()) {
    Script script;
    script.capabilities = capabilities;
    script.regions[0].size = 1 << 16;
    script.on[Command::region_write] = [this](Peer& peer, Incoming& m) {
      if (m.as<wire::RegionAccess>().offset == 0xff00) open.wait();
      server->behave(peer, m);
    };
    server.emplace(script);
    auto transport = server->client_end();
    const int tiny = 1;
    REQUIRE(::setsockopt(transport->fd(), SOL_SOCKET, SO_SNDBUF, &tiny, sizeof tiny) == 0);
    auto made = Client::adopt(std::move(transport), quick_options(30s));
    REQUIRE(made);
    client = std::move(*made);
    REQUIRE(client->attach({}));
    CHECK(client->region_write(0, 0xff00, Bytes(4), Write::may_post));  // the server stalls here
  }
  ~Stalled() { client.reset(); }

  // All single writes that the server saw, in order: those inside WRITE_MULTI too.
  [[nodiscard]] std::vector<std::uint64_t> offsets() const {
    std::vector<std::uint64_t> seen;
    for (const Logged& entry : server->log()) {
      if (entry.command() == Command::region_write)
        seen.push_back(entry.as<wire::RegionAccess>().offset);
      if (entry.command() != Command::region_write_multi) continue;
      const auto multi = entry.as<wire::WriteMulti>();
      CHECK(entry.payload.size() == sizeof multi + multi.count * sizeof(wire::WriteMultiEntry));
      for (std::uint64_t i = 0; i < multi.count; ++i) {
        seen.push_back(
            struct_at<wire::WriteMultiEntry>(entry.payload, sizeof multi + 24 * i).offset);
      }
    }
    return seen;
  }

  std::promise<void> gate;
  std::shared_future<void> open;
  std::optional<ScriptedServer> server;
  std::unique_ptr<Client> client;
};

TEST_CASE(
    "C60 WRITE_MULTI is sent only if offered, within its limits, complete, in order, and before a "
    "read") {
  const Steady steady;
  for (const bool offered : {false, true}) {
    CAPTURE(offered);
    Stalled stalled(offered ? R"("write_multiple":true,"max_data_xfer_size":2000)"
                            : R"("max_data_xfer_size":2000)");
    std::vector<std::uint64_t> wanted = {0xff00};
    for (std::uint64_t i = 0; i < 2000; ++i) {
      const std::uint64_t offset = i * 8;
      const auto value = static_cast<std::uint32_t>(i + 1);
      CHECK(stalled.client->region_write(0, offset, bytes_of(value), Write::may_post));
      wanted.push_back(offset);
    }
    stalled.gate.set_value();
    Bytes back(4);
    CHECK(stalled.client->region_read(0, 1999 * 8, back).value_or(0) == 4);
    CHECK(struct_at<std::uint32_t>(back) == 2000);
    CHECK(stalled.offsets() == wanted);
    const auto multi = stalled.server->log_of(Command::region_write_multi);
    CHECK(multi.empty() == !offered);
    CHECK(stalled.client->counters().sent[15] == multi.size());
    for (const Logged& entry : multi) {
      CHECK(entry.payload.size() <= 2000);
      CHECK((entry.header.flags & wire::kNoReply) != 0);
      CHECK(entry.as<wire::WriteMulti>().count <= 200);
    }
    CHECK(stalled.server->log().back().command() == Command::region_read);
  }
}

TEST_CASE("C60 no WRITE_MULTI has more than 200 entries") {
  const Steady steady;
  Stalled stalled(R"("write_multiple":true)");
  for (std::uint64_t i = 0; i < 1000; ++i) {
    CHECK(stalled.client->region_write(0, i * 8, Bytes(4), Write::may_post));
  }
  stalled.gate.set_value();
  Bytes back(4);
  CHECK(stalled.client->region_read(0, 0, back).value_or(0) == 4);
  CHECK(stalled.offsets().size() == 1001);
  std::uint64_t most = 0;
  for (const Logged& entry : stalled.server->log_of(Command::region_write_multi)) {
    most = std::max(most, entry.as<wire::WriteMulti>().count);
  }
  CHECK(most == 200);
}

TEST_CASE(
    "C60 coalesced writes go out before reset, unmap and a write that waits, with nothing after "
    "them") {
  const Steady steady;
  for (const Command command :
       {Command::device_reset, Command::device_set_irqs, Command::region_write}) {
    Stalled stalled(R"("write_multiple":true)");
    for (std::uint64_t i = 0; i < 50; ++i) {
      CHECK(stalled.client->region_write(0, i * 8, Bytes(8), Write::may_post));
    }
    std::thread other([&] {
      if (command == Command::device_reset) CHECK(stalled.client->reset());
      if (command == Command::device_set_irqs) CHECK(stalled.client->disable_irqs(wire::kIrqMsix));
      if (command == Command::region_write)
        CHECK(stalled.client->region_write(0, 0x8000, Bytes(4)));
    });
    stalled.gate.set_value();
    other.join();
    CHECK(stalled.offsets().size() == (command == Command::region_write ? 52 : 51));
    CHECK(stalled.server->log().back().command() == command);
  }
}

TEST_CASE("posted writes wait for their replies when the server has fallen too far behind") {
  const Steady steady;
  Stalled stalled(R"("write_multiple":false)");
  std::thread vcpu([&] {
    for (int i = 0; i < 20000; ++i) {
      if (!stalled.client->region_write(0, 8, Bytes(4), Write::may_post)) break;
    }
  });
  // 256 KiB of queued messages of 36 bytes: the writer stands still well before its 20000th.
  CHECK(stalled.server->wait_for(Command::region_write, 1));
  std::uint64_t before = 0;
  std::uint64_t after = stalled.client->counters().posted;
  while (after == 0 || after != before) {
    before = after;
    std::this_thread::sleep_for(20ms);
    after = stalled.client->counters().posted;
  }
  CHECK(after < 12000);
  stalled.gate.set_value();
  vcpu.join();
  Bytes back(4);
  CHECK(stalled.client->region_read(0, 0, back).value_or(0) == 4);
  CHECK(stalled.offsets().size() == 20001);
}

}  // namespace
}  // namespace outboard::protocol_test
