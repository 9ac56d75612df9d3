// CONFORMANCE D: GET_REGION_IO_FDS.
#include <optional>
#include <string>

#include <sys/eventfd.h>

#include "tests/protocol/check.h"
#include "tests/protocol/scripted_server.h"

namespace outboard::protocol_test {
namespace {

using Kind = Error::Kind;
using vfio_user::IoFd;

constexpr std::uint32_t kHead = sizeof(wire::RegionIoFds);

UniqueFd event() {
  return UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

// What the client makes of this reply for BAR0 (4 KiB).
Result<std::vector<IoFd>> offered(const Bytes& payload, const std::vector<int>& fds,
                                  Script script = {}) {
  script.on[Command::device_get_region_io_fds] = [&](Peer& peer, Incoming& m) {
    const auto ask = m.as<wire::RegionIoFds>();
    CHECK(m.payload.size() == kHead);
    CHECK(ask.argsz >= kHead + 48);
    CHECK(ask.count == 0);
    peer.reply(m.header, payload, fds);
  };
  ScriptedServer server(script);
  auto client = attached(server, quick_options(10s));
  auto result = client->region_io_fds(0);
  CHECK(client->alive());
  return result;
}

Bytes narrow(const std::vector<wire::IoFdEntry>& entries) {
  const auto count = static_cast<std::uint32_t>(entries.size());
  Bytes bytes = bytes_of(wire::RegionIoFds{kHead + count * 40, 0, 0, count});
  for (const auto& entry : entries) bytes = std::move(bytes) + bytes_of(entry);
  return bytes;
}

Bytes wide(const std::vector<wire::WideIoFdEntry>& entries) {
  const auto count = static_cast<std::uint32_t>(entries.size());
  Bytes bytes = bytes_of(wire::RegionIoFds{kHead + count * 48, 0, 0, count});
  for (const auto& entry : entries) bytes = std::move(bytes) + bytes_of(entry);
  return bytes;
}

TEST_CASE("C61 entries of 40 and of 48 bytes are both understood, with datamatch and PIO") {
  const Steady steady;
  const UniqueFd a = event();
  const UniqueFd b = event();
  for (const bool is_wide : {false, true}) {
    CAPTURE(is_wide);
    const Bytes reply = is_wide
                            ? wide({{0x10, 4, 1, 0, 1, 0, 0, 0x1234}, {0x20, 0, 0, 0, 2, 0, 0, 0}})
                            : narrow({{0x10, 4, 1, 0, 1, 0, 0x1234}, {0x20, 0, 0, 0, 2, 0, 0}});
    const auto ranges = offered(reply, {a.get(), b.get()});
    REQUIRE(ranges);
    REQUIRE(ranges->size() == 2);
    const IoFd& first = (*ranges)[0];
    CHECK(first.offset == 0x10);
    CHECK(first.size == 4);
    CHECK(first.datamatch == 0x1234);
    CHECK_FALSE(first.pio);
    CHECK(::eventfd_write(first.fd.get(), 3) == 0);
    eventfd_t value = 0;
    CHECK(::eventfd_read(b.get(), &value) == 0);
    CHECK(value == 3);
    const IoFd& second = (*ranges)[1];
    CHECK(second.size == 0);
    CHECK(second.pio);
    CHECK_FALSE(second.datamatch);
  }
}

TEST_CASE("C61 two entries may share a descriptor, and each has one of its own afterwards") {
  const Steady steady;
  const UniqueFd fd = event();
  const auto ranges = offered(narrow({{0, 4, 0, 0, 1, 0, 1}, {0, 4, 0, 0, 1, 0, 2}}), {fd.get()});
  REQUIRE(ranges);
  REQUIRE(ranges->size() == 2);
  CHECK((*ranges)[0].fd.get() != (*ranges)[1].fd.get());
}

TEST_CASE(
    "C61 a count without entries, an odd stride, a wrong index, size or count is an error and no "
    "more") {
  const Steady steady;
  const UniqueFd fd = event();
  const std::vector<int> one = {fd.get()};
  CHECK_FALSE(offered(bytes_of(wire::RegionIoFds{kHead, 0, 0, 3}), one));
  CHECK_FALSE(offered(bytes_of(wire::RegionIoFds{kHead + 40, 0, 0, 1}), one));
  CHECK_FALSE(offered(bytes_of(wire::RegionIoFds{kHead + 40, 0, 0, 1u << 31}) + Bytes(40), one));
  CHECK_FALSE(offered(bytes_of(wire::RegionIoFds{kHead + 44, 0, 0, 1}) + Bytes(44), one));
  CHECK_FALSE(offered(narrow({{0, 4, 1, 0, 0, 0, 0}}), one));
  CHECK_FALSE(offered(narrow({{0, 4, 0xffffffff, 0, 0, 0, 0}}), one));
  CHECK_FALSE(offered(narrow({{0, 4, 0, 0, 0, 0, 0}}), {}));
  CHECK_FALSE(offered(narrow({{0, 3, 0, 0, 0, 0, 0}}), one));
  CHECK_FALSE(offered(narrow({{0, 16, 0, 0, 0, 0, 0}}), one));
}

TEST_CASE(
    "C61 ioregionfds, shadow ioeventfds and unknown types are left out: no stock kernel takes "
    "them") {
  const Steady steady;
  const UniqueFd fd = event();
  const auto ranges = offered(narrow({{0, 4, 0, 1, 0, 0, 0},
                                      {8, 4, 0, 2, 0, 0, 0},
                                      {16, 4, 0, 7, 0, 0, 0},
                                      {24, 4, 0, 0, 0, 0, 0}}),
                              {fd.get()});
  REQUIRE(ranges);
  REQUIRE(ranges->size() == 1);
  CHECK((*ranges)[0].offset == 24);
}

TEST_CASE("a reply to GET_REGION_IO_FDS for another region kills the device") {
  const Steady steady;
  Script script;
  script.on[Command::device_get_region_io_fds] = [](Peer& peer, Incoming& m) {
    peer.reply(m.header, bytes_of(wire::RegionIoFds{kHead, 0, 1, 0}));
  };
  ScriptedServer server(script);
  auto client = attached(server, quick_options());
  CHECK_FALSE(client->region_io_fds(0));
  CHECK_FALSE(client->alive());
}

TEST_CASE("C62 a server that does not know the command, or has nothing to offer, offers nothing") {
  const Steady steady;
  for (const int code : {EINVAL, ENOSYS, ENOTTY, EOPNOTSUPP}) {
    Script script;
    script.on[Command::device_get_region_io_fds] = [code](Peer& peer, Incoming& m) {
      peer.error(m.header, code);
    };
    ScriptedServer server(script);
    auto client = attached(server, quick_options());
    CHECK(client->region_io_fds(0).value().empty());
    CHECK(client->alive());
    CHECK_FALSE(client->region_io_fds(9));
  }
  CHECK(offered(narrow({}), {}).value().empty());
}

TEST_CASE(
    "C63 an entry outside the region or on another one is refused; on a mapped page it is left "
    "out") {
  const Steady steady;
  const UniqueFd fd = event();
  const std::vector<int> one = {fd.get()};
  CHECK(offered(narrow({{4092, 4, 0, 0, 0, 0, 0}}), one).value().size() == 1);
  CHECK_FALSE(offered(narrow({{4093, 4, 0, 0, 0, 0, 0}}), one));
  CHECK_FALSE(offered(narrow({{4096, 0, 0, 0, 0, 0, 0}}), one));
  CHECK_FALSE(offered(narrow({{~std::uint64_t{0}, 4, 0, 0, 0, 0, 0}}), one));
  CHECK_FALSE(offered(narrow({{0, 4, 0, 0, 0, 0, 0}, {0, 4, 0, 0, 0, 0, 0}}), one));
  CHECK_FALSE(offered(narrow({{0, 8, 0, 0, 0, 0, 0}, {4, 4, 0, 0, 0, 0, 0}}), one));
  CHECK_FALSE(offered(narrow({{0, 4, 0, 0, 1, 0, 5}, {0, 4, 0, 0, 1, 0, 5}}), one));
  CHECK_FALSE(offered(narrow({{0, 4, 0, 0, 1, 0, 5}, {0, 4, 0, 0, 0, 0, 6}}), one));
  CHECK(offered(narrow({{0, 4, 0, 0, 1, 0, 5}, {0, 4, 0, 0, 1, 0, 6}}), one).value().size() == 2);

  const UniqueFd file = memory_file(1 << 16);
  Script pages;
  pages.regions[0] = {7, 1 << 16, 0, sparse_tail({{4096, 4096}}), {file.get()}};
  pages.handle_first_io_fds = true;  // a BAR with pages is not asked at attach
  const auto ranges =
      offered(narrow({{4096, 4, 0, 0, 0, 0, 0}, {8192, 4, 0, 0, 0, 0, 0}}), one, pages);
  REQUIRE(ranges);
  REQUIRE(ranges->size() == 1);
  CHECK((*ranges)[0].offset == 8192);
}

TEST_CASE("a server with more entries than asked for is asked once more, with room for them") {
  const Steady steady;
  const UniqueFd fd = event();
  std::vector<wire::WideIoFdEntry> entries;
  for (std::uint64_t i = 0; i < 200; ++i) entries.push_back({i * 8, 4, 0, 0, 0, 0, 0, 0});
  std::vector<std::uint32_t> asked;
  Script script;
  script.on[Command::device_get_region_io_fds] = [&](Peer& peer, Incoming& m) {
    const auto ask = m.as<wire::RegionIoFds>();
    asked.push_back(ask.argsz);
    const Bytes all = wide(entries);
    const int one = fd.get();
    if (ask.argsz < all.size()) {
      peer.reply(m.header,
                 bytes_of(wire::RegionIoFds{static_cast<std::uint32_t>(all.size()), 0, 0, 200}));
    } else {
      peer.reply(m.header, all, {&one, 1});
    }
  };
  ScriptedServer server(script);
  auto client = attached(server, quick_options());
  CHECK(client->region_io_fds(0).value().size() == 200);
  REQUIRE(asked.size() == 2);
  CHECK(asked[1] == kHead + 200 * 48);
}

TEST_CASE("C61 C62 C63 at attach writable BARs without pages are asked together with the rest") {
  const Steady steady;
  const UniqueFd fd = event();
  const UniqueFd file = memory_file(8192);
  struct Case {
    Bytes reply;
    std::size_t ranges;
    bool refused;
  };
  const std::vector<Case> cases = {
      {narrow({{0x10, 4, 0, 0, 0, 0, 0}, {0x18, 8, 0, 0, 1, 0, 7}}), 2, false},
      {narrow({}), 0, false},
      {narrow({{4093, 4, 0, 0, 0, 0, 0}}), 0, true},
      {narrow({{0, 8, 0, 0, 0, 0, 0}, {4, 4, 0, 0, 0, 0, 0}}), 0, true},
      {narrow({{0, 3, 0, 0, 0, 0, 0}}), 0, true},
      {bytes_of(wire::RegionIoFds{kHead + 40, 0, 0, 1u << 31}) + Bytes(40), 0, true}};
  for (const Case& one : cases) {
    std::vector<std::uint32_t> asked;
    Script script;
    script.handle_first_io_fds = true;
    script.regions[2] = {7, 8192, 0, sparse_tail({{4096, 4096}}), {file.get()}};
    script.regions[4] = {wire::kRegionReadable, 4096, 0, {}, {}};
    script.on[Command::device_get_region_io_fds] = [&](Peer& peer, Incoming& m) {
      asked.push_back(m.as<wire::RegionIoFds>().index);
      const int only = fd.get();
      peer.reply(m.header, one.reply, {&only, 1});
    };
    ScriptedServer server(script);
    auto client = server.connect(quick_options(10s));
    REQUIRE(client);
    const auto device = (*client)->attach({});
    REQUIRE(device);
    CHECK(asked == std::vector<std::uint32_t>{0});
    CHECK(device->round_trips == 3);
    CHECK(device->regions[0].io_fds.size() == one.ranges);
    CHECK(device->regions[0].io_fds_refused.empty() == !one.refused);
  }
}

TEST_CASE(
    "C62 a server that does not know the command is asked once for each such BAR, and attaches") {
  const Steady steady;
  Script script;
  script.handle_first_io_fds = true;
  script.on[Command::device_get_region_io_fds] = [](Peer& peer, Incoming& m) {
    peer.error(m.header, EINVAL);
  };
  ScriptedServer server(script);
  auto client = server.connect(quick_options(10s));
  REQUIRE(client);
  const auto device = (*client)->attach({});
  REQUIRE(device);
  CHECK(device->round_trips == 3);
  CHECK(device->regions[0].io_fds.empty());
  CHECK(device->regions[0].io_fds_refused.empty());
  CHECK(server.count_of(Command::device_get_region_io_fds) == 1);
}

TEST_CASE("C26 a reply to the query at attach that is too short breaks the connection") {
  const Steady steady;
  for (const std::size_t size : {0u, 1u, 15u}) {
    Script script;
    script.handle_first_io_fds = true;
    script.on[Command::device_get_region_io_fds] = [size](Peer& peer, Incoming& m) {
      peer.reply(m.header, Bytes(size));
    };
    ScriptedServer server(script);
    auto client = server.connect(quick_options(10s));
    REQUIRE(client);
    const auto device = (*client)->attach({});
    REQUIRE_FALSE(device);
    CHECK(device.error().kind == Kind::protocol);
  }
}

TEST_CASE("C62 a write and the question for ioeventfds are one round trip: both are in flight") {
  const Steady steady;
  const UniqueFd fd = event();
  std::optional<wire::Header> write;
  Script script;
  script.on[Command::region_write] = [&](Peer&, Incoming& m) { write = m.header; };
  script.on[Command::device_get_region_io_fds] = [&](Peer& peer, Incoming& m) {
    REQUIRE(write);  // came first, and has no reply yet
    const int only = fd.get();
    peer.reply(*write, bytes_of(wire::RegionAccess{8, 0, 4}));
    peer.reply(m.header, narrow({{0x10, 4, 0, 0, 0, 0, 0}}), {&only, 1});
  };
  ScriptedServer server(script);
  auto client = attached(server, quick_options(10s));
  const auto both = client->region_write_and_io_fds(0, 8, Bytes(4));
  CHECK(both.written);
  REQUIRE(both.io_fds);
  CHECK(both.io_fds->size() == 1);
  const auto sent = server.log_of(Command::region_write);
  REQUIRE(sent.size() == 1);
  CHECK((sent[0].header.flags & wire::kNoReply) == 0);
  CHECK(sent[0].payload == bytes_of(wire::RegionAccess{8, 0, 4}) + Bytes(4));
  // The offer is known from now on: nothing is posted any more.
  CHECK(client->region_write(0, 8, Bytes(4), vfio_user::Write::may_post).error().kind ==
        Kind::timeout);
  CHECK(client->counters().posted == 0);
}

TEST_CASE("single flight: the question for ioeventfds waits for the reply to the write") {
  const Steady steady;
  Memory ram(0x1000, 4096);
  int violations = 0;
  ScriptedServer* self = nullptr;
  Script script;
  script.on[Command::region_write] = [&](Peer& peer, Incoming& m) {
    peer.request(7, Command::dma_read, bytes_of(wire::DmaAccess{0x1000, 4}));
    const auto reply = peer.next();
    if (!reply || !reply->is_reply()) ++violations;
    self->behave(peer, m);
  };
  ScriptedServer server(script);
  self = &server;
  ClientOptions options = quick_options(10s);
  options.offer_twin_socket = false;
  auto client = attached(server, options, {&ram.window, 1});
  for (int i = 0; i < 20; ++i) {
    const auto both = client->region_write_and_io_fds(0, 8, Bytes(4));
    CHECK(both.written);
    CHECK(both.io_fds);
  }
  client.reset();
  CHECK(violations == 0);
}

TEST_CASE("C62 each half of a write with its question fails for itself") {
  const Steady steady;
  enum class Half { good, refused, silent, malformed };
  for (const Half write : {Half::good, Half::refused, Half::silent, Half::malformed}) {
    for (const Half ask : {Half::good, Half::refused, Half::silent, Half::malformed}) {
      CAPTURE(static_cast<int>(write));
      CAPTURE(static_cast<int>(ask));
      const auto answer = [](Peer& peer, Incoming& m, Half how, const Bytes& good) {
        if (how == Half::good) peer.reply(m.header, good);
        if (how == Half::refused) peer.error(m.header, EINVAL);
        if (how == Half::malformed) peer.reply(m.header, Bytes(3));
      };
      Script script;
      script.on[Command::region_write] = [&](Peer& peer, Incoming& m) {
        answer(peer, m, write, bytes_of(wire::RegionAccess{8, 0, 4}));
      };
      script.on[Command::device_get_region_io_fds] = [&](Peer& peer, Incoming& m) {
        answer(peer, m, ask, narrow({}));
      };
      ScriptedServer server(script);
      auto client = attached(server, quick_options(200ms));
      const auto both = client->region_write_and_io_fds(0, 8, Bytes(4));
      CHECK(both.written.has_value() == (write == Half::good));
      // A server that does not know the command offers nothing.
      CHECK(both.io_fds.has_value() == (ask == Half::good || ask == Half::refused));
      if (write == Half::silent) CHECK(both.written.error().kind == Kind::timeout);
      if (write == Half::refused) CHECK(both.written.error().code == EINVAL);
      if (ask == Half::silent) CHECK(both.io_fds.error().kind == Kind::timeout);
      CHECK(client->alive() == (write != Half::malformed && ask != Half::malformed));
    }
  }
}

TEST_CASE("a write with its question is checked as each of them is") {
  const Steady steady;
  ScriptedServer server{Script{}};
  auto client = attached(server, quick_options(10s));
  const auto log = server.log().size();
  CHECK_FALSE(client->region_write_and_io_fds(0, 4094, Bytes(4)).written);  // beyond the end
  const auto absent = client->region_write_and_io_fds(9, 0, Bytes(4));
  CHECK_FALSE(absent.written);
  CHECK_FALSE(absent.io_fds);
  CHECK(server.count_of(Command::region_write) == 0);
  CHECK(server.log().size() >= log);
}

}  // namespace
}  // namespace outboard::protocol_test
