// CONFORMANCE G: requests of the server.
#include <string>

#include "tests/protocol/check.h"
#include "tests/protocol/scripted_server.h"

namespace outboard::protocol_test {
namespace {

Bytes access(std::uint64_t address, std::uint64_t count) {
  return bytes_of(wire::DmaAccess{address, count});
}

// Sends one request and returns its reply, on a socket that nobody else reads.
Incoming ask(Peer& peer, Command command, const Bytes& payload, std::span<const int> fds = {}) {
  CHECK(peer.request(0x1234, command, payload, fds));
  auto reply = peer.next();
  CHECK(reply);
  if (!reply) return {};
  CHECK(reply->is_reply());
  CHECK(reply->header.id == 0x1234);
  CHECK(reply->command() == command);
  CHECK(reply->header.size == 16 + reply->payload.size());
  return std::move(*reply);
}

int error_of(Peer& peer, Command command, const Bytes& payload, std::span<const int> fds = {}) {
  const Incoming reply = ask(peer, command, payload, fds);
  const bool failed = (reply.header.flags & wire::kError) != 0;
  CHECK(failed == (reply.header.error != 0));
  if (failed) CHECK(reply.header.size == 16);  // C88: errors are the header alone
  return static_cast<int>(reply.header.error);
}

// RAM of two adjoining pages at 0x10000, a read-only page at 0x20000, one that may only be written
// at 0x30000, and one without a view at 0x40000; a server with a twin socket.
struct Machine {
  explicit Machine(Script script = {}, std::uint64_t max_transfer = 1 << 20)
      : low(0x10000, 4096),
        high(0x11000, 4096),
        rom(0x20000, 4096),
        sink(0x30000, 4096),
        file(memory_file(4096)) {
    rom.window.writable = false;
    sink.window.readable = false;
    script.twin = true;
    server.emplace(std::move(script));
    ClientOptions options = quick_options(20s);
    options.offered.max_data_xfer_size = max_transfer;
    for (std::size_t i = 0; i < 4096; ++i)
      low.bytes[i] = high.bytes[i] = static_cast<std::byte>(i * 3);
    const DmaWindow windows[] = {low.window,
                                 high.window,
                                 rom.window,
                                 sink.window,
                                 {0x40000, 4096, file.get(), 0, true, true, {}}};
    client = attached(*server, options, windows);
  }
  ~Machine() { client.reset(); }

  Memory low, high, rom, sink;
  UniqueFd file;
  std::optional<ScriptedServer> server;
  std::unique_ptr<Client> client;
};

TEST_CASE(
    "C82 DMA on the main socket during VERSION, before GET_INFO and with 1 and 8 requests in "
    "flight") {
  const Steady steady;
  Memory ram(0x1000, 4096);
  ram.bytes[0] = std::byte{0x77};
  const auto dma = [](Peer& peer, std::uint16_t id) {
    // In the server's thread: the next message is the reply, or requests of other vCPUs before it.
    peer.request(id, Command::dma_read, access(0x1000, 4));
  };
  Script script;
  ScriptedServer* self = nullptr;
  script.on[Command::version] = [&](Peer& peer, Incoming& m) {
    dma(peer, m.header.id);  // no window yet: EFAULT
    const auto reply = peer.next();
    CHECK(reply);
    if (reply) CHECK(reply->header.error == EFAULT);
    self->behave(peer, m);
  };
  script.on[Command::device_get_info] = [&](Peer& peer, Incoming& m) {
    dma(peer, m.header.id);  // the window is known: it was sent before
    const auto reply = peer.next();
    CHECK(reply);
    if (reply) {
      CHECK(reply->is_reply());
      CHECK(reply->header.error == 0);
      CHECK(reply->payload.size() == 20);
      CHECK(reply->payload[16] == std::byte{0x77});
    }
    self->behave(peer, m);
  };
  std::atomic<int> served{0};
  script.on[Command::region_read] = [&](Peer& peer, Incoming& m) {
    dma(peer, m.header.id);
    self->behave(peer, m);
  };
  script.on[Command::dma_read] = [&](Peer&, Incoming& m) { served += m.is_reply() ? 0 : 1; };
  ScriptedServer server(script);
  self = &server;
  ClientOptions options = quick_options(20s);
  options.offer_twin_socket = false;
  auto client = attached(server, options, {&ram.window, 1});
  std::array<std::byte, 4> data{};
  CHECK(client->region_read(0, 0, data).value_or(0) == 4);
  std::vector<std::thread> vcpus;
  for (int i = 0; i < 8; ++i) {
    vcpus.emplace_back([&] {
      std::array<std::byte, 4> mine{};
      for (int n = 0; n < 50; ++n) CHECK(client->region_read(0, 0, mine).value_or(0) == 4);
    });
  }
  for (auto& vcpu : vcpus) vcpu.join();
  const EventLoop loop(*client);
  REQUIRE(server.wait_for(Command::dma_read, 401));
  for (const Logged& reply : server.log_of(Command::dma_read)) CHECK(reply.payload.size() == 20);
}

TEST_CASE(
    "single flight: with DMA on the main socket the server never sees a second request before its "
    "reply") {
  const Steady steady;
  for (const bool window_without_fd : {true, false}) {
    Memory ram(0x1000, 4096);
    int violations = 0;
    int nested = 0;
    ScriptedServer* self = nullptr;
    Script script;
    script.on[Command::region_read] = [&](Peer& peer, Incoming& m) {
      // As libvfio-user does: the next bytes must be the reply.
      peer.request(7, Command::dma_read, access(0x1000, 4));
      const auto reply = peer.next();
      if (!reply || !reply->is_reply()) ++violations;
      ++nested;
      self->behave(peer, m);
    };
    ScriptedServer server(script);
    self = &server;
    ClientOptions options = quick_options(20s);
    options.offer_twin_socket = false;
    const UniqueFd file = memory_file(4096);
    if (!window_without_fd) ram.window.fd = file.get();
    auto client = attached(server, options, {&ram.window, 1});
    std::array<std::byte, 4> data{};
    // With an fd in every window the client learns of it by the first DMA message.
    CHECK(client->region_read(0, 0, data).value_or(0) == 4);
    std::vector<std::thread> vcpus;
    for (int i = 0; i < 6; ++i) {
      vcpus.emplace_back([&] {
        std::array<std::byte, 4> mine{};
        for (int n = 0; n < 40; ++n) CHECK(client->region_read(0, 0, mine).value_or(0) == 4);
      });
    }
    for (auto& vcpu : vcpus) vcpu.join();
    client.reset();
    server.stop();
    CHECK(violations == 0);
    CHECK(nested == 241);
  }
}

TEST_CASE("C83 DMA on the twin socket, and on both at once, while requests are in flight") {
  const Steady steady;
  Machine m;
  std::thread twin([&] {
    for (std::uint32_t i = 0; i < 200; ++i) {
      CHECK(error_of(m.server->twin(), Command::dma_write, access(0x10800, 4) + bytes_of(i)) == 0);
      const Incoming back = ask(m.server->twin(), Command::dma_read, access(0x10800, 4));
      CHECK(struct_at<std::uint32_t>(back.payload, 16) == i);
    }
  });
  std::thread main_socket([&] {
    for (int i = 0; i < 200; ++i)
      m.server->peer().request(5, Command::dma_read, access(0x11000, 8));
  });
  main_socket.join();
  std::array<std::byte, 4> data{};
  for (int i = 0; i < 200; ++i) CHECK(m.client->region_read(0, 0, data).value_or(0) == 4);
  twin.join();
  const EventLoop loop(*m.client);
  REQUIRE(m.server->wait_for(Command::dma_read, 200));
  CHECK(m.client->counters().received[11] == 400);
  CHECK(m.client->counters().received[12] == 200);
}

TEST_CASE(
    "C84 DMA at the edges of memory: inside it works, outside, against permission and too long it "
    "does not") {
  const Steady steady;
  Machine m({}, 4096);
  Peer& peer = m.server->twin();
  const std::uint64_t top = ~std::uint64_t{0};
  struct Case {
    std::uint64_t address, count;
    int read, write;
  };
  for (const Case& c : {Case{0x10000, 1, 0, 0},
                        {0x10000, 4096, 0, 0},
                        {0x10fff, 1, 0, 0},
                        {0x10ffc, 8, 0, 0},  // over the seam of two adjoining windows
                        {0x11ffc, 4, 0, 0},
                        {0x11ffc, 5, EFAULT, EFAULT},
                        {0x0ffff, 1, EFAULT, EFAULT},
                        {0x0ffff, 2, EFAULT, EFAULT},
                        {0x12000, 1, EFAULT, EFAULT},
                        {0x18000, 8, EFAULT, EFAULT},
                        {0x20000, 8, 0, EPERM},
                        {0x30000, 8, EPERM, 0},
                        {0x40000, 8, EFAULT, EFAULT},  // without a view of ours
                        {0xfee00000, 4, EFAULT, EFAULT},
                        {top, 1, EFAULT, EFAULT},
                        {top - 3, 8, EFAULT, EFAULT},
                        {0x10000, 0, EINVAL, EINVAL},
                        {0x10000, 4097, E2BIG, E2BIG}}) {
    CAPTURE(c.address);
    CAPTURE(c.count);
    CHECK(error_of(peer, Command::dma_read, access(c.address, c.count)) == c.read);
    CHECK(error_of(peer, Command::dma_write, access(c.address, c.count) + Bytes(c.count)) ==
          c.write);
  }
  for (const std::uint64_t count : {std::uint64_t{1} << 63, top, top - 15}) {
    CHECK(error_of(peer, Command::dma_read, access(0x10000, count)) == E2BIG);
    CHECK(error_of(peer, Command::dma_write, access(0x10000, count)) == E2BIG);
  }
  CHECK(m.client->alive());
}

TEST_CASE("C84 memory that ends at 2^64 does not go on at 0") {
  const Steady steady;
  Memory bottom(0, 4096);
  Memory top(~std::uint64_t{4095}, 4096);
  Script script;
  script.twin = true;
  ScriptedServer server(script);
  const DmaWindow windows[] = {bottom.window, top.window};
  auto client = attached(server, quick_options(), windows);
  CHECK(error_of(server.twin(), Command::dma_read, access(~std::uint64_t{7}, 8)) == 0);
  CHECK(error_of(server.twin(), Command::dma_read, access(~std::uint64_t{7}, 9)) == EFAULT);
  CHECK(error_of(server.twin(), Command::dma_write, access(~std::uint64_t{7}, 16) + Bytes(16)) ==
        EFAULT);
}

TEST_CASE("a reply on the twin socket, where nothing was asked, is drained and dropped") {
  const Steady steady;
  Machine m;
  CHECK(m.server->twin().reply({7, 11, 0, 0, 0}, access(0x10000, 8)));
  CHECK(m.server->twin().reply({7, 4, 0, 0, 0}, Bytes(1000)));
  CHECK(error_of(m.server->twin(), Command::dma_read, access(0x10000, 8)) == 0);
  CHECK(m.client->alive());
}

TEST_CASE("C84 a transfer that fails half way has not touched anything") {
  const Steady steady;
  Machine m;
  m.high.bytes[4095] = std::byte{1};
  CHECK(error_of(m.server->twin(), Command::dma_write,
                 access(0x11fff, 2) + Bytes(2, std::byte{0xee})) == EFAULT);
  CHECK(m.high.bytes[4095] == std::byte{1});
}

TEST_CASE("C85 a DMA request whose size does not fit its count, or under 16 bytes, is EINVAL") {
  const Steady steady;
  Machine m;
  Peer& peer = m.server->twin();
  CHECK(error_of(peer, Command::dma_write, access(0x10000, 8) + Bytes(7)) == EINVAL);
  CHECK(error_of(peer, Command::dma_write, access(0x10000, 8) + Bytes(9)) == EINVAL);
  CHECK(error_of(peer, Command::dma_write, access(0x10000, 8)) == EINVAL);
  CHECK(error_of(peer, Command::dma_read, access(0x10000, 8) + Bytes(1)) == EINVAL);
  for (std::size_t size = 0; size < 16; ++size) {
    CHECK(error_of(peer, Command::dma_read, Bytes(size)) == EINVAL);
    CHECK(error_of(peer, Command::dma_write, Bytes(size)) == EINVAL);
  }
  CHECK(error_of(peer, Command::dma_read, access(0x10000, 8)) == 0);
}

TEST_CASE(
    "C86 descriptors with a request are closed and refused; No_reply gets none, and is done") {
  const Steady steady;
  Machine m;
  Peer& peer = m.server->twin();
  const UniqueFd file = memory_file(4096);
  const std::vector<int> fds(3, file.get());
  const std::size_t before = open_fds();
  CHECK(error_of(peer, Command::dma_read, access(0x10000, 8), fds) == EINVAL);
  CHECK(error_of(peer, Command::dma_write, access(0x10000, 4) + Bytes(4), fds) == EINVAL);
  // They are closed by the thread that has just answered.
  const auto deadline = std::chrono::steady_clock::now() + 5s;
  while (open_fds() != before && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  CHECK(open_fds() == before);
  CHECK(peer.request(1, Command::dma_write, access(0x10000, 4) + Bytes(4, std::byte{0x42}), {},
                     wire::kNoReply));
  CHECK(peer.request(2, Command::dma_read, access(0, 4), {}, wire::kNoReply));
  CHECK(peer.request(3, Command::device_reset, {}, {}, wire::kNoReply));
  const Incoming next = ask(peer, Command::dma_read, access(0x10000, 4));  // its id is checked
  CHECK(next.payload[16] == std::byte{0x42});
}

TEST_CASE("C87 a server's request of any other command is ENOSYS, on both sockets") {
  const Steady steady;
  Machine m;
  std::size_t asked = 0;
  for (const int command : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15, 16, 17, 18, 19, 65535}) {
    CAPTURE(command);
    CHECK(error_of(m.server->twin(), static_cast<Command>(command), Bytes(40)) == ENOSYS);
    m.server->peer().request(9, static_cast<Command>(command), Bytes(40));
    ++asked;
  }
  std::array<std::byte, 4> data{};
  // The first read meets the requests; the second comes after the refusals, so when it is answered
  // the server has read them all.
  CHECK(m.client->region_read(0, 0, data).value_or(0) == 4);
  CHECK(m.client->region_read(0, 0, data).value_or(0) == 4);
  std::size_t refused = 0;
  for (const Logged& entry : m.server->log()) {
    if ((entry.header.flags & 1) == 0) continue;
    CHECK(entry.header.error == ENOSYS);
    CHECK(entry.header.size == 16);
    ++refused;
  }
  CHECK(refused == asked);
}

TEST_CASE("C88 replies have exactly the size that servers insist on, and echo address and count") {
  const Steady steady;
  Machine m;
  Peer& peer = m.server->twin();
  const Incoming write =
      ask(peer, Command::dma_write, access(0x10010, 100) + Bytes(100, std::byte{5}));
  CHECK(write.header.size == 32);  // trap: a 12-byte DMA_WRITE reply
  CHECK(write.header.flags == wire::kTypeReply);
  CHECK(write.as<wire::DmaAccess>().address == 0x10010);
  CHECK(write.as<wire::DmaAccess>().count == 100);
  for (const std::uint64_t count : {1u, 100u, 4096u, 8192u}) {
    const Incoming read = ask(peer, Command::dma_read, access(0x10000, count));
    CHECK(read.header.size == 32 + count);
    CHECK(read.as<wire::DmaAccess>().address == 0x10000);
    CHECK(read.as<wire::DmaAccess>().count == count);
    CHECK(read.payload[16] == m.low.bytes[0]);
    if (count >= 4096) CHECK(read.payload[16 + 4095] == m.low.bytes[4095]);
    if (count == 8192) CHECK(read.payload.back() == m.high.bytes[4095]);
  }
  m.client->close();  // joins the twin thread, which has written
  CHECK(m.low.bytes[0x10] == std::byte{5});
  CHECK(m.low.bytes[0x10 + 100] != std::byte{5});
}

TEST_CASE("C89 a server that floods the main socket with requests and reads no reply is dropped") {
  const Steady steady;
  Memory ram(0, 4096);
  int sent = 0;
  Script script;
  script.on[Command::region_read] = [&](Peer& peer, Incoming&) {
    while (sent < 100000 && peer.request(1, Command::dma_read, access(0, 4096))) ++sent;
  };
  ScriptedServer server(script);
  auto client = attached(server, quick_options(60s));
  REQUIRE(client->dma_map(ram.window));
  std::array<std::byte, 4> data{};
  const auto got = client->region_read(0, 0, data);
  REQUIRE_FALSE(got);
  CHECK(got.error().message.find("without reading the replies") != std::string::npos);
  CHECK_FALSE(client->alive());
  server.stop();
  CHECK(sent < 100000);
}

TEST_CASE("C89 a flood on the twin socket stops itself and holds nobody up") {
  const Steady steady;
  Machine m;
  std::atomic<bool> stop{false};
  std::thread flood([&] {
    while (!stop && m.server->twin().request(1, Command::dma_read, access(0x10000, 4096))) {
    }
  });
  std::array<std::byte, 4> data{};
  for (int i = 0; i < 500; ++i) CHECK(m.client->region_read(0, 0, data).value_or(0) == 4);
  stop = true;
  m.client->close();
  flood.join();
}

TEST_CASE(
    "C90 DMA is served while a DMA_UNMAP waits for its reply: of this window and of another") {
  const Steady steady;
  for (const bool twin : {true, false}) {
    Memory first(0, 4096);
    Memory second(0x8000, 4096);
    ScriptedServer* self = nullptr;
    Script script;
    script.twin = twin;
    script.on[Command::dma_unmap] = [&](Peer& peer, Incoming& m) {
      for (const std::uint64_t address : {0u, 0x8000u}) {
        CHECK(error_of(twin ? self->twin() : peer, Command::dma_read, access(address, 8)) == 0);
      }
      peer.reply(m.header, m.payload);
    };
    ScriptedServer server(script);
    self = &server;
    auto client = attached(server, quick_options(20s));
    REQUIRE(client->dma_map(first.window));
    REQUIRE(client->dma_map(second.window));
    CHECK(client->dma_unmap(0, 4096));
    CHECK(client->alive());
  }
}

}  // namespace
}  // namespace outboard::protocol_test
