// Clients of a Server that come, go, are slow, are hostile; and DMA by messages.

#include <algorithm>
#include <atomic>
#include <fstream>
#include <iterator>
#include <mutex>
#include <thread>

#include <doctest/doctest.h>
#include <sys/eventfd.h>

#include "vfio_user/server.h"
#include "vfio_user/transport.h"
#include "vfio_user_raw_client.h"

namespace outboard::vfio_user {
namespace {

using std::chrono::milliseconds;
using testing::Bench;
using testing::Bytes;
using testing::bytes_of;
using testing::join;
using testing::make_memfd;
using testing::message_bytes;
using testing::open_fds;
using testing::PlainDevice;
using testing::readable;
using testing::receive_message;
using testing::send_bytes;
using testing::text_bytes;
using wire::Command;

constexpr const char* kTwinCaps =
    R"({"capabilities":{"max_msg_fds":8,"twin_socket":{"supported":true}}})";

Bytes access(std::uint32_t region, std::uint64_t offset, std::uint32_t count) {
  return bytes_of(wire::RegionAccess{offset, region, count});
}

TEST_CASE("C16 commands that come byte by byte are served") {
  Bench bench;
  bench.negotiate();
  const auto bytes = message_bytes(9, 9, 0, access(0, 0, 4));
  for (const auto byte : bytes) {
    send_bytes(bench.client.get(), {byte});
    bench.pump();
  }
  CHECK(receive_message(bench.client.get())->header.id == 9);
}

TEST_CASE("Many commands in one segment are answered in their order") {
  Bench bench;
  bench.negotiate();
  Bytes bytes;
  for (std::uint16_t id = 0; id < 500; ++id) {
    bytes = join(bytes, message_bytes(id, 9, 0, access(0, 0, 4)));
  }
  send_bytes(bench.client.get(), bytes);
  bench.pump();
  for (std::uint16_t id = 0; id < 500; ++id) {
    CHECK(receive_message(bench.client.get())->header.id == id);
  }
}

TEST_CASE("A client that breaks the framing is dropped, and everything of it goes (C18)") {
  const auto before = open_fds();
  {
    Bench bench;
    const auto version = bench.negotiate(kTwinCaps);  // keeps the twin socket open
    const auto fd = make_memfd(0x1000);
    CHECK(bench.dma_map(0, 0x1000, fd.get()) == 0);
    send_bytes(bench.client.get(), bytes_of(wire::Header{1, 9, 15, 0, 0}));
    bench.pump();
    CHECK(!bench.server->connected());
    CHECK(bench.device.unmapped_.size() == 1);
    CHECK(bench.device.disconnects_ == 1);
    CHECK(bench.server->counters().dropped == 1);
    CHECK(bench.server->translate(0, 1, false).empty());
    CHECK(!bench.log.empty());
  }
  CHECK(open_fds() == before);
}

TEST_CASE("A reply that nobody waits for is drained and dropped (2.1)") {
  Bench bench;
  bench.negotiate();
  bench.post(11, Bytes(20), {}, wire::kTypeReply);
  CHECK(bench.ask(Command::device_reset, {})->error() == 0);
  CHECK(bench.server->counters().stray_replies == 1);
}

TEST_CASE("A client that does not read is dropped once its replies pass the bound") {
  ServerOptions options;
  options.max_queued_output = 1024 * 1024;
  Bench bench(options);
  bench.device.shape_.regions[0].size = 1024 * 1024;
  bench.device.on_read = [](auto, auto) { return 0; };
  bench.negotiate();
  int asked = 0;
  while (bench.server->connected() && asked < 200) {
    bench.post(9, access(0, 0, 256 * 1024));
    bench.pump();
    ++asked;
  }
  CHECK(!bench.server->connected());
  CHECK(asked > 4);
  CHECK(bench.server->counters().dropped == 1);
}

TEST_CASE("Replies that did not fit at once arrive in order when the client reads again") {
  Bench bench;
  bench.device.shape_.regions[0].size = 1024 * 1024;
  bench.device.on_read = [](std::uint64_t offset, std::span<std::byte> data) {
    std::fill(data.begin(), data.end(), static_cast<std::byte>(offset));
    return 0;
  };
  const int small = 4096;
  bench.negotiate();
  ::setsockopt(bench.client.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
  constexpr int kReads = 40;
  for (int i = 0; i < kReads; ++i) {
    bench.post(9, access(0, static_cast<std::uint64_t>(i), 256 * 1024));
    while (readable(bench.server->poll_fd(), 0) && bench.server->process() &&
           bench.server->counters().commands[9] <= static_cast<std::uint64_t>(i)) {
    }
  }
  std::thread pumping([&] {
    while (bench.server->connected()) {
      if (readable(bench.server->poll_fd(), 1000)) CHECK(bench.server->process());
    }
  });
  for (int i = 0; i < kReads; ++i) {
    const auto reply = receive_message(bench.client.get());
    REQUIRE(reply);
    CHECK(reply->as<wire::RegionAccess>().offset == static_cast<std::uint64_t>(i));
    CHECK(reply->payload.back() == static_cast<std::byte>(i));
  }
  bench.client.reset();
  pumping.join();
}

/// A server that listens, in a directory of its own.
struct Listening {
  explicit Listening(ServerOptions options = {}) {
    char name[] = "/tmp/outboard-server-XXXXXX";
    directory = ::mkdtemp(name);
    path = directory + "/s";
    auto made = Server::listen(path, device, std::move(options));
    REQUIRE(made);
    server = std::move(*made);
  }
  ~Listening() {
    server.reset();
    std::filesystem::remove_all(directory);
  }
  void pump() {
    while (readable(server->poll_fd())) REQUIRE(server->process());
  }
  [[nodiscard]] UniqueFd connect() const {
    auto fd = connect_unix(path, std::chrono::steady_clock::now() + milliseconds(1000));
    REQUIRE(fd);
    return std::move(*fd);
  }
  std::optional<testing::RawMessage> ask(const UniqueFd& client, Command command,
                                         const Bytes& payload, std::span<const int> fds = {}) {
    send_bytes(client.get(), message_bytes(1, static_cast<std::uint16_t>(command), 0, payload),
               fds);
    pump();
    return receive_message(client.get());
  }
  std::optional<testing::RawMessage> negotiate(const UniqueFd& client) {
    return ask(client, Command::version, bytes_of(wire::Version{0, 0}));
  }

  PlainDevice device;
  std::string directory, path;
  std::unique_ptr<Server> server;
};

TEST_CASE("C3 a second client is closed at once, and the first one goes on") {
  Listening bench;
  const auto first = bench.connect();
  REQUIRE(bench.negotiate(first));
  const auto second = bench.connect();
  bench.pump();
  std::byte byte{};
  CHECK(::recv(second.get(), &byte, 1, MSG_DONTWAIT) == 0);
  CHECK(bench.server->counters().refused == 1);
  CHECK(bench.ask(first, Command::device_reset, {})->error() == 0);
}

TEST_CASE(
    "C99 after a client has left, the next one is served, also if it came before the other was "
    "seen to have left") {
  Listening bench;
  for (int i = 1; i <= 20; ++i) {
    const auto client = bench.connect();
    REQUIRE(bench.negotiate(client));
    CHECK(bench.device.connects_ == i);
    CHECK(bench.device.disconnects_ == i - 1);
  }
  CHECK(bench.server->counters().refused == 0);
}

TEST_CASE("C100 1000 clients leave no fd and no mapping behind") {
  Listening bench;
  const auto memory = make_memfd(0x10000);
  const int raw = memory.get();
  const auto maps = [] {
    std::ifstream file("/proc/self/maps");
    return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
  };
  const UniqueFd eventfd(::eventfd(0, EFD_CLOEXEC));
  const int raw_event = eventfd.get();
  const auto visit = [&] {
    const auto client = bench.connect();
    const auto version =
        bench.ask(client, Command::version,
                  join(bytes_of(wire::Version{0, 0}), text_bytes(kTwinCaps), Bytes(1)));
    REQUIRE(version);
    CHECK(bench
              .ask(client, Command::dma_map, bytes_of(wire::DmaMap{32, 3, 0, 0, 0x10000}),
                   std::span(&raw, 1))
              ->error() == 0);
    for (const std::uint32_t flags : {0x24u, 0x14u}) {
      CHECK(bench
                .ask(client, Command::device_set_irqs, bytes_of(wire::SetIrqs{20, flags, 0, 0, 1}),
                     std::span(&raw_event, 1))
                ->error() == 0);
    }
  };
  visit();
  bench.pump();
  const auto fds_before = open_fds();
  const auto maps_before = maps();
  for (int i = 0; i < 1000; ++i) visit();
  bench.pump();
  CHECK(open_fds() == fds_before);
  CHECK(maps() <= maps_before + 4);  // the allocator may have taken some more
  CHECK(bench.device.disconnects_ == 1001);
}

TEST_CASE("The socket file goes with the server, unless it is another one by then") {
  Listening bench;
  CHECK(std::filesystem::exists(bench.path));
  SUBCASE("goes") {
    bench.server.reset();
    CHECK(!std::filesystem::exists(bench.path));
  }
  SUBCASE("stays") {
    std::filesystem::remove(bench.path);
    const auto other = listen_unix(bench.path, 1);
    bench.server.reset();
    CHECK(std::filesystem::exists(bench.path));
  }
}

TEST_CASE("A client that connects and is silent makes room for another after a while (5.1)") {
  ServerOptions options;
  options.version_timeout = milliseconds(30);
  Listening bench(options);
  const auto silent = bench.connect();
  bench.pump();
  REQUIRE(readable(bench.server->poll_fd(), 2000));
  bench.pump();
  CHECK(bench.server->counters().dropped == 1);
  const auto next = bench.connect();
  CHECK(bench.negotiate(next));
  CHECK(!readable(bench.server->poll_fd(), 60));  // the timer is off
}

TEST_CASE("A server can take over a socket that is listening already") {
  Listening bench;
  const auto path = bench.directory + "/inherited";
  auto listener = listen_unix(path, 1);
  REQUIRE(listener);
  CHECK(!Server::listen(make_memfd(1), bench.device));
  const auto server = Server::listen(std::move(*listener), bench.device);
  REQUIRE(server);
  const auto client = connect_unix(path, std::chrono::steady_clock::now() + milliseconds(1000));
  REQUIRE(client);
  CHECK((*server)->process());
  CHECK((*server)->counters().connections == 1);
}

/// Answers DMA requests from a buffer, as a client would, on a thread of its own.
class DmaClient {
 public:
  using Intercept = std::function<bool(const testing::RawMessage&)>;  // true: it has answered

  explicit DmaClient(int socket, Intercept intercept = {})
      : intercept_(std::move(intercept)), thread_([this, socket] { run(socket); }) {}
  ~DmaClient() { thread_.join(); }

  Bytes memory = Bytes(4 * 1024 * 1024);
  std::uint64_t base = 0x100000;

 private:
  void run(int socket) {
    while (const auto request = receive_message(socket)) {
      if ((request->header.flags & wire::kTypeMask) == wire::kTypeReply) continue;
      if (intercept_ && intercept_(*request)) continue;
      const auto dma = request->as<wire::DmaAccess>();
      const auto at = memory.begin() + static_cast<std::ptrdiff_t>(dma.address - base);
      Bytes payload = bytes_of(dma);
      if (request->header.command == 11) {
        payload.insert(payload.end(), at, at + static_cast<std::ptrdiff_t>(dma.count));
      } else {
        std::copy(request->payload.begin() + 16, request->payload.end(), at);
      }
      send_bytes(socket, message_bytes(request->header.id, request->header.command,
                                       wire::kTypeReply, payload));
    }
  }
  Intercept intercept_;
  std::thread thread_;
};

TEST_CASE("C83 windows without an fd are reached by messages over the twin socket, in chunks") {
  Bench bench;
  const auto version = bench.negotiate(
      R"({"capabilities":{"max_msg_fds":8,"max_data_xfer_size":4096,"twin_socket":{"supported":true}}})");
  REQUIRE(version->fds.size() == 1);
  CHECK(bench.dma_map(0x100000, 0x400000, -1) == 0);
  {
    DmaClient client(version->fds[0].get());
    Bytes data(10'000);
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i);
    CHECK(bench.server->dma_write(0x100800, data) == 0);
    Bytes back(data.size());
    CHECK(bench.server->dma_read(0x100800, back) == 0);
    CHECK(back == data);
    CHECK(bench.server->counters().dma_messages == 6);
    CHECK(bench.server->dma_read(0x4fffff, std::span(back).first(2)) == EFAULT);
    CHECK(bench.server->dma_read(UINT64_MAX, std::span(back).first(2)) == EFAULT);
    ::shutdown(version->fds[0].get(), SHUT_RDWR);
  }
  bench.pump();
  CHECK(!bench.server->connected());
}

TEST_CASE("A range may span windows of different kinds, each with its permission") {
  Bench bench;
  bench.negotiate();
  const auto fd = make_memfd(0x10000);
  CHECK(bench.dma_map(0x1000, 0x1000, fd.get()) == 0);
  CHECK(bench.dma_map(0x2000, 0x1000, fd.get(), 0x1000, 3 | wire::kDmaFileIo) == 0);
  CHECK(bench.dma_map(0x3000, 0x1000, fd.get(), 0x2000, wire::kDmaReadable) == 0);
  CHECK(bench.device.mapped_[1].host.empty());
  const Bytes data(0x2000, std::byte{5});
  CHECK(bench.server->dma_write(0x1000, data) == 0);
  CHECK(bench.server->dma_write(0x1001, data) == EPERM);
  Bytes back(0x3000);
  CHECK(bench.server->dma_read(0x1000, back) == 0);
  CHECK(std::equal(data.begin(), data.end(), back.begin()));
  CHECK(bench.server->dma_read(0x1001, back) == EFAULT);
  CHECK(bench.server->counters().dma_messages == 0);
}

TEST_CASE("C82 on the main socket, commands that come in between are executed afterwards") {
  Bench bench;
  bench.negotiate(R"({"capabilities":{"max_msg_fds":8}})");
  CHECK(bench.dma_map(0x100000, 0x400000, -1) == 0);
  // A write to offset 0 makes the device fetch from guest memory before the write is answered.
  std::vector<std::uint64_t> order;
  Bytes fetched(64);
  int error = -1;
  bench.device.on_write = [&](std::uint64_t offset, std::span<const std::byte> data) {
    order.push_back(offset);
    if (offset == 0) error = bench.server->dma_read(0x100000, fetched);
    CHECK(data.size() == 4);  // what the write carried survives the messages in between
    CHECK(data[0] == std::byte{0x11});
    return 0;
  };
  const Bytes value(4, std::byte{0x11});
  bench.post(10, join(access(0, 0, 4), value));
  std::thread guest([&] {
    const auto request = receive_message(bench.client.get());
    REQUIRE(request);
    CHECK(request->header.command == 11);
    // Two commands are on the way already, one with the id of the server's request.
    send_bytes(bench.client.get(),
               join(message_bytes(request->header.id, 10, 0, join(access(0, 8, 4), value)),
                    message_bytes(901, 10, 0, join(access(0, 16, 4), value)),
                    message_bytes(request->header.id, 11, 1,
                                  join(request->payload, Bytes(64, std::byte{7})))));
  });
  while (order.empty()) {
    REQUIRE(readable(bench.server->poll_fd(), 2000));
    REQUIRE(bench.server->process());
  }
  guest.join();
  bench.pump();
  CHECK(error == 0);
  CHECK(fetched == Bytes(64, std::byte{7}));
  CHECK(order == std::vector<std::uint64_t>{0, 8, 16});
  CHECK(receive_message(bench.client.get())->header.command == 10);
  CHECK(receive_message(bench.client.get())->header.command == 10);
  CHECK(receive_message(bench.client.get())->header.id == 901);
}

TEST_CASE("Commands set aside outside of process() make poll_fd() readable") {
  Bench bench;
  bench.negotiate(R"({"capabilities":{"max_msg_fds":8}})");
  CHECK(bench.dma_map(0x100000, 0x400000, -1) == 0);
  std::thread guest([&] {
    const auto request = receive_message(bench.client.get());
    send_bytes(bench.client.get(), join(message_bytes(901, 13, 0, {}),
                                        message_bytes(request->header.id, 12, 1,
                                                      bytes_of(request->as<wire::DmaAccess>()))));
  });
  CHECK(bench.server->dma_write(0x100000, Bytes(16)) == 0);
  guest.join();
  CHECK(bench.device.resets_ == 0);
  CHECK(readable(bench.server->poll_fd()));
  bench.pump();
  CHECK(bench.device.resets_ == 1);
  CHECK(receive_message(bench.client.get())->header.id == 901);
}

TEST_CASE("C88 what a client may answer to a DMA request, and what each answer means") {
  Bench bench;
  const auto version = bench.negotiate(kTwinCaps);
  const int twin = version->fds[0].get();
  CHECK(bench.dma_map(0x100000, 0x400000, -1) == 0);
  std::mutex mutex;  // of what the client is to answer
  Bytes reply;
  std::uint32_t flags = wire::kTypeReply;
  std::uint32_t error = 0;
  {
    const DmaClient client(twin, [&](const testing::RawMessage& request) {
      const std::lock_guard lock(mutex);
      wire::Header header = request.header;
      header.flags = flags;
      header.error = error;
      header.size = static_cast<std::uint32_t>(16 + reply.size());
      send_bytes(twin, join(bytes_of(header), reply));
      return true;
    });
    const auto will = [&](const Bytes& answer) {
      const std::lock_guard lock(mutex);
      reply = answer;
    };
    const auto write = [&](const Bytes& answer) {
      will(answer);
      return bench.server->dma_write(0x100000, Bytes(8));
    };
    CHECK(write(bytes_of(wire::DmaAccess{0x100000, 8})) == 0);
    CHECK(write({}) == 0);         // older clients answer with the header alone
    CHECK(write(Bytes(12)) == 0);  // the size the protocol's text once printed
    CHECK(write(bytes_of(wire::DmaAccess{0x100000, 4})) == EPROTO);  // not all of it
    CHECK(write(bytes_of(wire::DmaAccess{0, 8})) == EPROTO);
    CHECK(write(Bytes(20)) == EINVAL);
    const auto read = [&](const Bytes& answer) {
      will(answer);
      Bytes into(8);
      return bench.server->dma_read(0x100000, into);
    };
    CHECK(read(join(bytes_of(wire::DmaAccess{0x100000, 8}), Bytes(8))) == 0);
    CHECK(read(join(bytes_of(wire::DmaAccess{0x100000, 8}), Bytes(7))) == EINVAL);
    CHECK(read(join(bytes_of(wire::DmaAccess{0x100000, 4}), Bytes(4))) == EPROTO);
    {
      const std::lock_guard lock(mutex);
      flags |= wire::kError;
      error = EFAULT;
    }
    CHECK(write({}) == EFAULT);
    {
      const std::lock_guard lock(mutex);
      error = 0;
    }
    CHECK(write({}) == EIO);
    CHECK(bench.server->connected());
    ::shutdown(twin, SHUT_RDWR);
  }
}

TEST_CASE(
    "A DMA request that is never answered ends at its deadline, and a late reply is dropped") {
  ServerOptions options;
  options.dma_timeout = milliseconds(30);
  for (const bool with_twin : {false, true}) {
    CAPTURE(with_twin);
    Bench bench(options);
    const auto version = bench.negotiate(with_twin ? kTwinCaps : "{}");
    const int socket = with_twin ? version->fds[0].get() : bench.client.get();
    CHECK(bench.dma_map(0x100000, 0x400000, -1) == 0);
    Bytes into(8);
    CHECK(bench.server->dma_read(0x100000, into) == ETIMEDOUT);
    const auto request = receive_message(socket);
    send_bytes(socket, message_bytes(request->header.id, 11, 1, join(request->payload, Bytes(8))));
    bench.pump();
    CHECK(bench.server->counters().stray_replies == 1);
    CHECK(bench.ask(Command::device_reset, {})->error() == 0);
  }
}

TEST_CASE("A client that goes away in the middle of a DMA request ends it at once (C96)") {
  Bench bench;
  bench.negotiate("{}");
  CHECK(bench.dma_map(0x100000, 0x400000, -1) == 0);
  int error = 0;
  bench.device.on_write = [&](auto, auto) {
    Bytes into(8);
    error = bench.server->dma_read(0x100000, into);
    CHECK(bench.server->dma_read(0x100000, into) == ENOTCONN);
    return error;
  };
  bench.post(10, join(access(0, 0, 4), Bytes(4)));
  std::thread guest([&] {
    receive_message(bench.client.get());
    bench.client.reset();
  });
  while (bench.device.writes_ == 0) CHECK(bench.server->process());
  guest.join();
  CHECK(error == ENOTCONN);
  bench.pump();
  CHECK(bench.device.disconnects_ == 1);
}

TEST_CASE("C87 a command on the twin socket ends the connection (2.8)") {
  Bench bench;
  const auto version = bench.negotiate(kTwinCaps);
  send_bytes(version->fds[0].get(), message_bytes(1, 13, 0, {}));
  bench.pump();
  CHECK(!bench.server->connected());
  CHECK(bench.device.resets_ == 0);
}

TEST_CASE("A client that closes its twin socket is a client that has left (2.8)") {
  Bench bench;
  bench.negotiate(kTwinCaps)->fds.clear();
  bench.pump();
  CHECK(!bench.server->connected());
  CHECK(bench.device.disconnects_ == 1);
}

TEST_CASE("A client that answers no DMA request but sends commands for ever is dropped") {
  Bench bench;
  bench.negotiate("{}");
  CHECK(bench.dma_map(0x100000, 0x400000, -1) == 0);
  std::atomic<bool> done = false;
  std::thread flood([&] {
    const auto reset = message_bytes(1, 13, wire::kNoReply, {});
    for (int i = 0; i < 10'000 && !done; ++i) send_bytes(bench.client.get(), reset);
  });
  Bytes into(8);
  CHECK(bench.server->dma_read(0x100000, into) == ENOTCONN);
  done = true;
  bench.pump();
  CHECK(!bench.server->connected());
  flood.join();
}

TEST_CASE("Random bytes from a client never hurt the server (fixed seed)") {
  std::uint64_t state = 42;
  const auto random = [&] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state >> 33);
  };
  for (int round = 0; round < 300; ++round) {
    Bench bench;
    bench.negotiate();
    const auto fd = make_memfd(0x4000);
    const int raw = fd.get();
    for (int i = 0; i < 40 && bench.server->connected(); ++i) {
      Bytes payload(random() % 64);
      for (std::size_t at = 0; at + 4 <= payload.size(); at += 4) {
        const std::uint32_t value = random() % 3 == 0 ? random() : random() % 64;
        std::memcpy(payload.data() + at, &value, 4);
      }
      const auto command = static_cast<std::uint16_t>(random() % 20);
      bench.post(command, payload, std::span(&raw, random() % 4 == 0 ? 1 : 0),
                 random() % 64 & 0x11);
      bench.pump();
      while (readable(bench.client.get()) && receive_message(bench.client.get())) {
      }
    }
  }
}

}  // namespace
}  // namespace outboard::vfio_user
