// CONFORMANCE B: the stream under load, full buffers and signals.
#include <future>
#include <set>
#include <string>

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "tests/protocol/check.h"
#include "tests/protocol/scripted_server.h"
#include "vfio_user/transport.h"

namespace outboard::protocol_test {
namespace {

using Kind = Error::Kind;

// A client whose socket takes about one message before it is full.
std::unique_ptr<Client> narrow_client(ScriptedServer& server, const ClientOptions& options,
                                      std::span<const DmaWindow> windows = {}) {
  auto transport = server.client_end();
  const int tiny = 1;
  REQUIRE(::setsockopt(transport->fd(), SOL_SOCKET, SO_SNDBUF, &tiny, sizeof tiny) == 0);
  auto client = Client::adopt(std::move(transport), options);
  REQUIRE(client);
  REQUIRE((*client)->attach(windows));
  return std::move(*client);
}

TEST_CASE("C29 descriptors that the kernel had to drop kill the device, and none is leaked") {
  const Steady steady;
  const UniqueFd file = memory_file(4096);
  const std::vector<int> fds(60, file.get());
  Script script;
  script.on[Command::region_read] = [&](Peer& peer, Incoming& m) {
    peer.reply(m.header, bytes_of(m.as<wire::RegionAccess>()) + Bytes(4), fds);
  };
  ScriptedServer server(script);
  auto client = attached(server, quick_options(20s));
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  rlimit low = before;
  low.rlim_cur = open_fds() + 10;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &low) == 0);
  std::array<std::byte, 4> data{};
  const auto got = client->region_read(0, 0, data);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  REQUIRE_FALSE(got);
  CHECK(got.error().kind == Kind::protocol);
  CHECK_FALSE(client->alive());
}

TEST_CASE(
    "C31 with a server that does not read requests time out, and its DMA is served all the same") {
  const Steady steady;
  for (const bool twin : {false, true}) {
    CAPTURE(twin);
    Memory ram(0, 4096);
    std::promise<void> gate;
    auto open = gate.get_future().share();
    Script script;
    script.twin = twin;
    script.regions[0].size = 1 << 20;
    script.on[Command::region_write] = [&, open](Peer& peer, Incoming& m) {
      open.wait();
      peer.reply(m.header, bytes_of(m.as<wire::RegionAccess>()));
    };
    ScriptedServer server(script);
    ClientOptions options = quick_options();
    options.timeouts.access = 150ms;
    options.timeouts_until_dead = 100;
    auto client = narrow_client(server, options);
    CHECK(client->dma_map(ram.window));
    if (!twin) CHECK(client->region_read(0, 0, ram.window.host.first(4)));
    std::vector<std::thread> vcpus;
    std::atomic<int> timed_out{0};
    for (int i = 0; i < 4; ++i) {
      vcpus.emplace_back([&] {
        const Bytes data(16 * 1024);
        const auto done = client->region_write(0, 0, data);
        if (!done && done.error().kind == Kind::timeout) ++timed_out;
      });
    }
    CHECK(server.wait_for(Command::region_write, 1));
    const Bytes write = bytes_of(wire::DmaAccess{16, 4}) + Bytes(4, std::byte{0xa5});
    Peer& from = twin ? server.twin() : server.peer();
    CHECK(from.request(1, Command::dma_write, write));
    if (twin) {
      const auto answer = from.next();
      REQUIRE(answer);
      CHECK(answer->payload.size() == 16);
    }
    for (auto& vcpu : vcpus) vcpu.join();
    CHECK(timed_out == 4);
    CHECK(client->alive());
    gate.set_value();
    // What was queued goes out, late replies are dropped, and the device works again.
    CHECK(client->region_read(0, 0, ram.window.host.first(4)).value_or(0) == 4);
    if (!twin) CHECK(server.wait_for(Command::dma_write, 1));
    client->close();
    CHECK(ram.bytes[16] == std::byte{0xa5});
  }
}

TEST_CASE("C32 a storm of signals changes nothing") {
  const Steady steady;
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = [](int) {};  // without SA_RESTART
  REQUIRE(::sigaction(SIGUSR1, &action, &before) == 0);
  Script script;
  script.regions[0].size = 1 << 20;
  script.slow = false;
  ScriptedServer server(script);
  auto client = attached(server, quick_options(20s));
  std::atomic<bool> stop{false};
  const pthread_t target = ::pthread_self();
  std::thread storm([&] {
    while (!stop) {
      ::pthread_kill(target, SIGUSR1);
      std::this_thread::yield();
    }
  });
  int good = 0;
  Bytes data(100 * 1024);
  for (int i = 0; i < 100; ++i) {
    data[0] = static_cast<std::byte>(i);
    Bytes back(data.size());
    good += client->region_write(0, 0, data).has_value() ? 1 : 0;
    good += client->region_read(0, 0, back).value_or(0) == back.size() && back == data ? 1 : 0;
  }
  stop = true;
  storm.join();
  CHECK(good == 200);
  CHECK(client->alive());
  REQUIRE(::sigaction(SIGUSR1, &before, nullptr) == 0);
}

TEST_CASE("C33 no id is used again while its request is in flight, over 70000 requests") {
  const Steady steady;
  std::optional<wire::Header> slow;
  Script script;
  script.on[Command::region_read] = [&](Peer& peer, Incoming& m) {
    const Bytes answer = bytes_of(m.as<wire::RegionAccess>()) + Bytes(4);
    if (!slow) {
      slow = m.header;
      return;
    }
    peer.reply(*slow, bytes_of(wire::RegionAccess{0, 0, 4}) + Bytes(4, std::byte{1}));
    peer.reply(m.header, answer);
  };
  ScriptedServer server(script);
  auto client = attached(server, quick_options(120s));
  std::thread waiter([&] {
    std::array<std::byte, 4> data{};
    CHECK(client->region_read(0, 0, data).value_or(0) == 4);
    CHECK(data[0] == std::byte{1});
  });
  REQUIRE(server.wait_for(Command::region_read, 1));
  const std::array<std::byte, 4> value{};
  int posted = 0;
  for (int i = 0; i < 70000; ++i) {
    posted += client->region_write(0, 8, value, vfio_user::Write::may_post).has_value() ? 1 : 0;
  }
  CHECK(posted == 70000);
  std::array<std::byte, 4> data{};
  CHECK(client->region_read(0, 4, data).value_or(0) == 4);
  waiter.join();
  CHECK(client->counters().posted > 65536);
  std::size_t same = 0;
  for (const Logged& entry : server.log()) same += entry.header.id == slow->id ? 1 : 0;
  CHECK(same == 1);
}

TEST_CASE("C34 every message is one sendmsg, with its descriptors, and never over 1 MiB + 32") {
  const Steady steady;
  Script script;
  script.regions[0].size = 1 << 20;
  script.capabilities = R"("max_msg_fds":8,"max_data_xfer_size":1048576)";
  ScriptedServer server(script);
  const UniqueFd file = memory_file(1 << 20);
  const DmaWindow windows[] = {{0, 1 << 19, file.get(), 0, true, true, {}},
                               {1 << 20, 1 << 19, file.get(), 1 << 19, true, false, {}}};
  auto client = attached(server, quick_options(20s), windows);
  CHECK(client->arm_irqs(wire::kIrqMsix, 0, std::vector<int>(8, file.get())));
  Bytes data(1 << 20);
  CHECK(client->region_write(0, 0, data));
  CHECK(client->region_read(0, 0, data).value_or(0) == data.size());
  CHECK(client->reset());
  for (const Logged& entry : server.log()) {
    CAPTURE(wire::name_of(entry.command()));
    CHECK(entry.whole);
    CHECK(entry.stray_fds == 0);
    CHECK(entry.header.size <= (1u << 20) + 32);
    CHECK((entry.header.flags & wire::kTypeMask) == wire::kTypeCommand);
    CHECK(entry.header.error == 0);
  }
}

TEST_CASE("one thread waits and reads, and the event loop sleeps meanwhile") {
  const Steady steady;
  ScriptedServer server{Script()};
  auto client = attached(server, quick_options(20s));
  const EventLoop loop(*client);
  std::array<std::byte, 4> data{};
  for (int i = 0; i < 500; ++i) CHECK(client->region_read(0, 0, data).value_or(0) == 4);
  // A reply belongs to its reader: the loop wakes only in the moment between two requests, if at
  // all.
  CHECK(loop.wake_ups() < 50);
}

TEST_CASE("8 threads share the reader role: every reply arrives, whoever reads it") {
  const Steady steady;
  ScriptedServer server{Script()};
  auto client = attached(server, quick_options(20s));
  const EventLoop loop(*client);
  std::vector<std::thread> vcpus;
  std::atomic<int> good{0};
  for (std::uint64_t t = 0; t < 8; ++t) {
    vcpus.emplace_back([&, t] {
      for (std::uint32_t i = 0; i < 300; ++i) {
        const auto value = bytes_of(i);
        Bytes back(4);
        const bool done = client->region_write(0, t * 8, value).has_value() &&
                          client->region_read(0, t * 8, back).value_or(0) == 4 && back == value;
        good += done ? 1 : 0;
      }
    });
  }
  for (auto& vcpu : vcpus) vcpu.join();
  CHECK(good == 8 * 300);
}

TEST_CASE("a thread that gives up hands the reader role on: another one's reply is read at once") {
  const Steady steady;
  Script script;
  script.on[Command::device_reset] = [](Peer&, Incoming&) {};
  script.on[Command::region_read] = [](Peer&, Incoming&) {};
  ScriptedServer server(script);
  ClientOptions options = quick_options(60s);
  options.timeouts.reset = 200ms;
  auto client = attached(server, options);
  std::thread reader([&] { CHECK(client->reset().error().kind == Kind::timeout); });
  REQUIRE(server.wait_for(Command::device_reset, 1));
  const auto begin = std::chrono::steady_clock::now();
  std::thread sleeper([&] {
    std::array<std::byte, 4> data{};
    CHECK(client->region_read(0, 0, data).value_or(0) == 4);
  });
  REQUIRE(server.wait_for(Command::region_read, 2));
  reader.join();
  // The reply comes with nobody else about: the sleeper must have become the reader.
  server.peer().reply(server.log_of(Command::region_read).back().header,
                      bytes_of(wire::RegionAccess{0, 0, 4}) + Bytes(4));
  sleeper.join();
  CHECK(std::chrono::steady_clock::now() - begin < 30s);
}

// A server that reads nothing from the first posted write to offset 8 on until `gate` opens, and
// answers no read before it has seen `wanted` writes.
struct Backlog {
  explicit Backlog(int wanted) : open(gate.get_future().share()) {
    Script script;
    script.on[Command::region_write] = [this](Peer& peer, Incoming& m) {
      if (writes++ == 0) open.wait();
      if (m.fds.empty() && (m.header.flags & wire::kNoReply) == 0) {
        peer.reply(m.header, bytes_of(m.as<wire::RegionAccess>()));
      }
      answer(peer);
    };
    script.on[Command::region_read] = [this, wanted](Peer& peer, Incoming& m) {
      held = m.header;
      needed = wanted;
      answer(peer);
    };
    server.emplace(script);
    client = narrow_client(*server, quick_options(60s));
  }
  ~Backlog() { client.reset(); }
  void answer(Peer& peer) {
    if (!held || writes < needed) return;
    peer.reply(*held, bytes_of(wire::RegionAccess{0, 0, 4}) + Bytes(4));
    held.reset();
  }
  void post() { CHECK(client->region_write(0, 8, Bytes(4), vfio_user::Write::may_post)); }

  std::promise<void> gate;
  std::shared_future<void> open;
  std::atomic<int> writes{0};
  int needed = 0;
  std::optional<wire::Header> held;
  std::optional<ScriptedServer> server;
  std::unique_ptr<Client> client;
};

TEST_CASE("a thread that waits for its reply sends what others have queued meanwhile") {
  const Steady steady;
  Backlog b(100);
  std::thread waiter([&] {
    std::array<std::byte, 4> data{};
    CHECK(b.client->region_read(0, 0, data).value_or(0) == 4);
  });
  REQUIRE(b.server->wait_for(Command::region_read, 2));
  for (int i = 0; i < 100; ++i) b.post();  // the socket is full after a few
  b.gate.set_value();
  const auto begin = std::chrono::steady_clock::now();
  waiter.join();
  CHECK(std::chrono::steady_clock::now() - begin < 30s);
  CHECK(b.writes == 100);
}

TEST_CASE("with nobody waiting the event loop sends what is queued") {
  const Steady steady;
  Backlog b(0);
  const EventLoop loop(*b.client);
  for (int i = 0; i < 100; ++i) b.post();
  b.gate.set_value();
  CHECK(b.server->wait_for(Command::region_write, 100));
}

TEST_CASE("descriptors of a message that had to be queued arrive with it") {
  const Steady steady;
  Backlog b(0);
  const UniqueFd file = memory_file(4096);
  for (int i = 0; i < 50; ++i) b.post();
  std::thread vcpu(
      [&] { CHECK(b.client->arm_irqs(wire::kIrqMsix, 0, std::vector<int>(8, file.get()))); });
  while (b.client->counters().sent[8] == 0) std::this_thread::yield();
  b.gate.set_value();
  vcpu.join();
  const auto armed = b.server->log_of(Command::device_set_irqs);
  REQUIRE(armed.size() == 1);
  CHECK(armed[0].fds == 8);
  CHECK(armed[0].stray_fds == 0);
}

}  // namespace
}  // namespace outboard::protocol_test
