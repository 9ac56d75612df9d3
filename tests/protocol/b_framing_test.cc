// CONFORMANCE B: the stream and its messages.
#include <string>

#include <sys/socket.h>

#include "tests/protocol/check.h"
#include "tests/protocol/scripted_server.h"

namespace outboard::protocol_test {
namespace {

using Kind = Error::Kind;
using Clock = std::chrono::steady_clock;

// The script in which one command is answered as `answer` says.
Script with(Command command, Script::Handler answer) {
  Script script;
  script.on[command] = std::move(answer);
  return script;
}

Result<std::size_t> read4(Client& client, std::uint64_t offset = 0) {
  std::array<std::byte, 4> data{};
  return client.region_read(0, offset, data);
}

TEST_CASE("C16 replies delivered one byte at a time, with fds on the first, work") {
  const Steady steady;
  const UniqueFd file = memory_file(8192);
  Script script;
  script.slow = true;
  script.regions[2] = {7, 8192, 0, sparse_tail({{4096, 4096}}), {file.get()}};
  ScriptedServer server(script);
  auto client = server.connect(quick_options(20s));
  REQUIRE(client);
  const auto device = (*client)->attach({});
  REQUIRE(device);
  CHECK(device->regions[2].mappable);
  CHECK(read4(**client).value_or(0) == 4);
}

TEST_CASE("C17 two replies, and a reply and a request, in one segment are all taken") {
  const Steady steady;
  Memory ram(0, 4096);
  ram.bytes[8] = std::byte{0x5a};
  std::optional<wire::Header> first;
  ScriptedServer server(with(Command::region_read, [&](Peer& peer, Incoming& m) {
    const auto answer = [](const wire::Header& h, std::uint64_t offset) {
      return Peer::reply_bytes(h, bytes_of(wire::RegionAccess{offset, 0, 4}) + Bytes(4));
    };
    if (m.as<wire::RegionAccess>().offset == 64) {
      peer.send(answer(m.header, 64) +
                Peer::request_bytes(77, Command::dma_read, bytes_of(wire::DmaAccess{8, 1})));
      return;
    }
    if (!first) {
      first = m.header;
      return;
    }
    // Either order is as good: both threads wait.
    peer.send(answer(*first, 0) + answer(m.header, 0));
  }));
  ClientOptions options = quick_options();
  auto client = attached(server, options, {&ram.window, 1});
  // Single flight is on (a window without an fd): the second read goes out after the first, so use
  // a connection without windows for the pair.
  CHECK(read4(*client, 64).value_or(0) == 4);
  {
    const EventLoop loop(*client);
    REQUIRE(server.wait_for(Command::dma_read, 1));
  }
  const auto replies = server.log_of(Command::dma_read);
  CHECK(replies[0].header.id == 77);
  CHECK(replies[0].payload.back() == std::byte{0x5a});
  client.reset();

  ScriptedServer pair(with(Command::region_read, [&](Peer& peer, Incoming& m) {
    const auto answer = [](const wire::Header& h) {
      return Peer::reply_bytes(h, bytes_of(wire::RegionAccess{0, 0, 4}) + Bytes(4));
    };
    if (!first) {
      first = m.header;
      return;
    }
    peer.send(answer(*first) + answer(m.header));
  }));
  auto second = attached(pair, quick_options());
  std::thread other([&] { CHECK(read4(*second).value_or(0) == 4); });
  CHECK(read4(*second).value_or(0) == 4);
  other.join();
}

TEST_CASE(
    "C18 a header that says 0, 15, 16, 2^32-1 or more than any message has kills the device at "
    "once") {
  const Steady steady;
  for (const std::uint32_t size : {0u, 15u, 16u, 0xffffffffu, 64u << 20}) {
    CAPTURE(size);
    ScriptedServer server(with(Command::region_read, [size](Peer& peer, Incoming& m) {
      peer.send(bytes_of(wire::Header{m.header.id, m.header.command, size, wire::kTypeReply, 0}));
    }));
    auto client = attached(server, quick_options(20s));
    const auto got = read4(*client);
    REQUIRE_FALSE(got);
    CHECK(got.error().kind == Kind::protocol);
    CHECK_FALSE(client->alive());
    CHECK(read4(*client).error().kind == Kind::protocol);
  }
}

TEST_CASE("C19 types 2 to 15 kill the device, undefined flags of a valid reply are ignored") {
  const Steady steady;
  for (std::uint32_t type = 2; type < 16; ++type) {
    ScriptedServer server(with(Command::region_read, [type](Peer& peer, Incoming& m) {
      peer.send(bytes_of(wire::Header{m.header.id, m.header.command, 16, type, 0}));
    }));
    auto client = attached(server, quick_options(20s));
    CHECK_FALSE(read4(*client));
    CHECK_FALSE(client->alive());
  }
  ScriptedServer server(with(Command::region_read, [](Peer& peer, Incoming& m) {
    peer.reply(m.header, bytes_of(m.as<wire::RegionAccess>()) + Bytes(4), {}, 0xffffff90);
  }));
  auto client = attached(server, quick_options());
  CHECK(read4(*client).value_or(0) == 4);
}

TEST_CASE("C20 replies of an unknown id, twice, or after the deadline are drained and dropped") {
  const Steady steady;
  std::optional<wire::Header> late;
  ScriptedServer server(with(Command::region_read, [&](Peer& peer, Incoming& m) {
    const auto access = m.as<wire::RegionAccess>();
    const Bytes answer = bytes_of(access) + Bytes(4, std::byte{7});
    if (access.offset == 0) {  // kept until after the deadline
      late = m.header;
      return;
    }
    if (late) {
      peer.reply(*late, bytes_of(wire::RegionAccess{0, 0, 4}) + Bytes(4));
      late.reset();
    }
    wire::Header stranger = m.header;
    stranger.id = static_cast<std::uint16_t>(stranger.id + 1000);
    peer.reply(stranger, answer + Bytes(100));
    peer.reply(m.header, answer);
    peer.reply(m.header, answer);
  }));
  ClientOptions options = quick_options();
  options.timeouts.access = 100ms;
  auto client = attached(server, options);
  const auto got = read4(*client);
  REQUIRE_FALSE(got);
  CHECK(got.error().kind == Kind::timeout);
  for (int i = 0; i < 3; ++i) {
    std::array<std::byte, 4> data{};
    CHECK(client->region_read(0, 4, data).value_or(0) == 4);
    CHECK(data[0] == std::byte{7});
  }
  CHECK(client->alive());
  CHECK(client->counters().timeouts == 1);
  // The last duplicate may still lie in the socket.
  CHECK(client->counters().late_replies >= 6);
}

TEST_CASE("C21 a reply with the right id and another command kills the device") {
  const Steady steady;
  ScriptedServer server(with(Command::region_read, [](Peer& peer, Incoming& m) {
    wire::Header header = m.header;
    header.command = static_cast<std::uint16_t>(Command::region_write);
    peer.reply(header, bytes_of(m.as<wire::RegionAccess>()) + Bytes(4));
  }));
  auto client = attached(server, quick_options(20s));
  const auto got = read4(*client);
  REQUIRE_FALSE(got);
  CHECK(got.error().kind == Kind::protocol);
  CHECK_FALSE(client->alive());
}

TEST_CASE("C21 a late reply with another command than its request kills the device") {
  const Steady steady;
  std::optional<wire::Header> late;
  ScriptedServer server(with(Command::region_read, [&](Peer& peer, Incoming& m) {
    if (!late) {
      late = m.header;
      return;
    }
    late->command = static_cast<std::uint16_t>(Command::region_write);
    peer.reply(*late);
  }));
  ClientOptions options = quick_options();
  options.timeouts.access = 100ms;
  auto client = attached(server, options);
  CHECK_FALSE(read4(*client));
  CHECK(client->alive());
  CHECK_FALSE(read4(*client));
  CHECK_FALSE(client->alive());
}

TEST_CASE("C22 replies out of order to 8 requests in flight each reach their own waiter") {
  const Steady steady;
  std::vector<wire::Header> waiting;
  std::vector<wire::RegionAccess> accesses;
  ScriptedServer server(with(Command::region_read, [&](Peer& peer, Incoming& m) {
    waiting.push_back(m.header);
    accesses.push_back(m.as<wire::RegionAccess>());
    if (waiting.size() < 8) return;
    for (const std::size_t i : {5u, 2u, 7u, 0u, 6u, 1u, 4u, 3u}) {
      peer.reply(waiting[i],
                 bytes_of(accesses[i]) + Bytes(4, static_cast<std::byte>(accesses[i].offset)));
    }
    waiting.clear();
    accesses.clear();
  }));
  auto client = attached(server, quick_options(20s));
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (std::uint64_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 50; ++round) {
        std::array<std::byte, 4> data{};
        const auto got = client->region_read(0, t * 4, data);
        if (got.value_or(0) == 4 && data[3] == static_cast<std::byte>(t * 4)) ++good;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(good == 400);
}

TEST_CASE("C23 an error reply with a payload is drained and the next request works") {
  const Steady steady;
  bool first = true;
  ScriptedServer server(with(Command::region_read, [&](Peer& peer, Incoming& m) {
    if (std::exchange(first, false)) {
      peer.error(m.header, EINVAL, Bytes(20));
    } else {
      peer.reply(m.header, bytes_of(m.as<wire::RegionAccess>()) + Bytes(4));
    }
  }));
  auto client = attached(server, quick_options());
  CHECK(read4(*client).error().code == EINVAL);
  CHECK(read4(*client).value_or(0) == 4);
}

TEST_CASE("C24 a header-only error reply to any command is that errno, by name, and nothing more") {
  const Steady steady;
  for (const Call& call : calls_after_attach()) {
    CAPTURE(wire::name_of(call.command));
    Memory ram(0, 4096);
    Script script;
    script.twin = true;
    script.on[call.command] = [&](Peer& peer, Incoming& m) {
      if (m.command() == Command::dma_map && m.as<wire::DmaMap>().address == 0) {
        peer.reply(m.header);
      } else {
        peer.error(m.header, ENOSPC);
      }
    };
    ScriptedServer server(script);
    auto client = attached(server, quick_options(), {&ram.window, 1});
    const auto done = call.run(*client);
    CHECK(client->alive());
    if (call.command == Command::device_get_region_io_fds) {
      CHECK(done.has_value());  // C62: none are offered
    } else {
      REQUIRE_FALSE(done);
      CHECK(done.error().kind == Kind::server);
      CHECK(done.error().code == ENOSPC);
      CHECK(done.error().message.find("ENOSPC") != std::string::npos);
      CHECK(done.error().message.find("dut: ") == 0);
    }
    CHECK(client->counters().errors == 1);
  }
  for (const Command command : {Command::device_get_info, Command::device_get_region_info,
                                Command::device_get_irq_info, Command::region_read}) {
    Script script = with(command, [](Peer& peer, Incoming& m) { peer.error(m.header, EPERM); });
    script.handle_config_reads = true;
    ScriptedServer server(script);
    auto client = server.connect(quick_options());
    REQUIRE(client);
    const auto device = (*client)->attach({});
    REQUIRE_FALSE(device);
    CHECK(device.error().code == EPERM);
    CHECK(device.error().message.find(wire::name_of(command)) != std::string::npos);
    CHECK((*client)->alive());
  }
}

TEST_CASE("C25 an error number of 0, beyond 4095 or negative becomes a sane errno") {
  const Steady steady;
  std::uint32_t number = 0;
  ScriptedServer server(with(Command::region_read, [&](Peer& peer, Incoming& m) {
    peer.reply(m.header, {}, {}, wire::kError, number);
  }));
  Script plain;
  auto client = server.connect(quick_options());
  REQUIRE(client);
  for (const auto& [sent, seen] : {std::pair<std::uint32_t, int>{0, EIO},
                                   {4096, EIO},
                                   {0x80000000, EIO},
                                   {0xffffffea, EIO},
                                   {ENOENT, ENOENT}}) {
    number = sent;
    const auto got = read4(**client);
    REQUIRE_FALSE(got);
    CHECK(got.error().kind == Kind::server);
    CHECK(got.error().code == seen);
  }
}

TEST_CASE(
    "C26 a success reply that is shorter than its structure is refused, whatever the command") {
  const Steady steady;
  // What a command's reply must have; DMA_UNMAP alone may be a header only.
  const std::map<Command, std::size_t> sizes = {{Command::dma_unmap, 24},
                                                {Command::device_get_region_io_fds, 16},
                                                {Command::region_read, 20},
                                                {Command::region_write, 16}};
  for (const Call& call : calls_after_attach()) {
    if (!sizes.contains(call.command)) continue;
    for (std::size_t size = 0; size < sizes.at(call.command); ++size) {
      CAPTURE(wire::name_of(call.command));
      CAPTURE(size);
      if (call.command == Command::dma_unmap && size == 0) continue;
      Memory ram(0, 4096);
      Script script;
      script.twin = true;
      script.on[call.command] = [&](Peer& peer, Incoming& m) {
        Bytes answer = m.payload;
        answer.resize(sizes.at(m.command()));
        answer.resize(size);
        peer.reply(m.header, answer);
      };
      ScriptedServer server(script);
      auto client = attached(server, quick_options(20s), {&ram.window, 1});
      const auto done = call.run(*client);
      REQUIRE_FALSE(done);
      CHECK(done.error().kind == Kind::protocol);
    }
  }
  for (const Command command :
       {Command::device_get_info, Command::device_get_region_info, Command::device_get_irq_info}) {
    const std::size_t full = command == Command::device_get_region_info ? 32 : 16;
    for (std::size_t size = 0; size < full; ++size) {
      ScriptedServer server(with(command, [&](Peer& peer, Incoming& m) {
        Bytes answer = command == Command::device_get_info ? bytes_of(wire::DeviceInfo{16, 3, 9, 5})
                                                           : m.payload;
        answer.resize(size);
        peer.reply(m.header, answer);
      }));
      auto client = server.connect(quick_options(20s));
      REQUIRE(client);
      const auto device = (*client)->attach({});
      REQUIRE_FALSE(device);
      CHECK(device.error().kind == Kind::protocol);
    }
  }
}

TEST_CASE("C27 a success reply with trailing bytes, up to 1 MiB of them, is drained") {
  const Steady steady;
  for (const std::size_t extra : {std::size_t{1}, std::size_t{24}, std::size_t{1} << 20}) {
    for (const Call& call : calls_after_attach()) {
      if (call.command == Command::device_get_region_io_fds) continue;  // its size has a meaning
      CAPTURE(wire::name_of(call.command));
      Memory ram(0, 4096);
      Script script;
      script.twin = true;
      script.on[call.command] = [&](Peer& peer, Incoming& m) {
        if (m.command() == Command::region_read) {
          const auto access = m.as<wire::RegionAccess>();
          peer.reply(m.header, bytes_of(access) + Bytes(access.count + extra));
        } else if (m.command() == Command::region_write) {
          peer.reply(m.header, bytes_of(m.as<wire::RegionAccess>()) + Bytes(extra));
        } else {
          peer.reply(m.header, m.payload + Bytes(extra));
        }
      };
      ScriptedServer server(script);
      auto client = attached(server, quick_options(20s), {&ram.window, 1});
      CHECK(call.run(*client).has_value());
      CHECK(read4(*client).value_or(0) == 4);
    }
  }
}

TEST_CASE("C28 1, 16 or 253 descriptors that nobody asked for are closed, on every reply") {
  const Steady steady;
  const UniqueFd file = memory_file(4096);
  for (const std::size_t count : {1u, 16u, 253u}) {
    const std::vector<int> fds(count, file.get());
    for (const Call& call : calls_after_attach()) {
      CAPTURE(wire::name_of(call.command));
      Memory ram(0, 4096);
      Script script;
      script.twin = true;
      script.on[call.command] = [&](Peer& peer, Incoming& m) {
        const auto access = m.as<wire::RegionAccess>();
        if (m.command() == Command::region_read) {
          peer.reply(m.header, bytes_of(access) + Bytes(access.count), fds);
        } else if (m.command() == Command::region_write) {
          peer.reply(m.header, bytes_of(access), fds);
        } else {
          peer.reply(m.header, m.payload, fds);
        }
      };
      ScriptedServer server(script);
      auto client = attached(server, quick_options(20s), {&ram.window, 1});
      CHECK(call.run(*client).has_value());
      const std::size_t before = open_fds();
      for (int i = 0; i < 3; ++i) {
        if (call.command == Command::dma_map || call.command == Command::dma_unmap) break;
        CHECK(call.run(*client).has_value());
      }
      CHECK(open_fds() == before);
    }
  }
}

TEST_CASE("C30 descriptors on a byte of the body are closed and given to nobody") {
  const Steady steady;
  const UniqueFd file = memory_file(8192);
  Script script;
  script.regions[2] = {7, 8192, 0, sparse_tail({{4096, 4096}}), {}};
  script.on[Command::device_get_region_info] = [&](Peer& peer, Incoming& m) {
    const auto ask = m.as<wire::RegionInfo>();
    if (ask.index != 2 || ask.argsz == sizeof ask) {
      const bool two = ask.index == 2;
      wire::RegionInfo info{two ? 80u : 32u, two ? 7u : 3u, ask.index, 0, two ? 8192u : 256u, 0};
      peer.reply(m.header, bytes_of(info));
      return;
    }
    const Bytes tail = sparse_tail({{4096, 4096}});
    const Bytes all = Peer::reply_bytes(
        m.header, bytes_of(wire::RegionInfo{32 + static_cast<std::uint32_t>(tail.size()), 15, 2, 32,
                                            8192, 0}) +
                      tail);
    const int fd = file.get();
    peer.send(std::span(all).first(16));
    peer.send(std::span(all).subspan(16, 8), {&fd, 1});
    peer.send(std::span(all).subspan(24));
  };
  ScriptedServer server(script);
  auto client = server.connect(quick_options());
  REQUIRE(client);
  const auto device = (*client)->attach({});
  REQUIRE(device);
  CHECK_FALSE(device->regions[2].mappable);
  CHECK(device->regions[2].trapped_because.find("no file descriptor") != std::string::npos);
}

}  // namespace
}  // namespace outboard::protocol_test
