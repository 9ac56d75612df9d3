// CONFORMANCE H: time and death.
#include <future>
#include <string>

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/protocol/check.h"
#include "tests/protocol/scripted_server.h"
#include "vfio_user/socket_transport.h"

namespace outboard::protocol_test {
namespace {

using Kind = Error::Kind;
using Clock = std::chrono::steady_clock;

Result<std::size_t> read4(Client& client, std::uint64_t offset = 0) {
  std::array<std::byte, 4> data{};
  return client.region_read(0, offset, data);
}

TEST_CASE(
    "C92 a reply before the deadline counts; one after it is dropped and the device recovers") {
  const Steady steady;
  Script script;
  script.on[Command::region_read] = [](Peer& peer, Incoming& m) {
    const auto access = m.as<wire::RegionAccess>();
    std::this_thread::sleep_for(std::chrono::milliseconds(access.offset));
    peer.reply(m.header, bytes_of(access) + Bytes(4));
  };
  ScriptedServer server(script);
  ClientOptions options = quick_options(20s);
  options.timeouts.access = 300ms;
  auto client = attached(server, options);
  for (int round = 0; round < 2; ++round) {
    CHECK(read4(*client, 100).has_value());
    const auto begin = Clock::now();
    const auto late = read4(*client, 500);
    REQUIRE_FALSE(late);
    CHECK(late.error().kind == Kind::timeout);
    CHECK(late.error().message ==
          "dut: REGION_READ of 4 bytes at BAR0+0x1f4: no reply within 300 ms");
    CHECK(Clock::now() - begin >= 300ms);
    // The next one waits behind it in the server; its own deadline is long enough.
    CHECK(read4(*client, 0).has_value());
    CHECK(client->alive());
  }
  CHECK(client->counters().timeouts == 2);
  CHECK(client->counters().late_replies == 2);
}

TEST_CASE(
    "C92 after as many deadlines in a row as configured the device is dead; a reply starts the "
    "count anew") {
  const Steady steady;
  int silent = 0;
  ScriptedServer* self = nullptr;
  Script script;
  script.on[Command::region_read] = [&](Peer& peer, Incoming& m) {
    if (m.as<wire::RegionAccess>().offset == 0) {
      ++silent;
    } else {
      self->behave(peer, m);
    }
  };
  ScriptedServer server(script);
  self = &server;
  ClientOptions options = quick_options(20s);
  options.timeouts.access = 30ms;
  options.timeouts_until_dead = 3;
  auto client = attached(server, options);
  for (int i = 0; i < 2; ++i) CHECK_FALSE(read4(*client, 0));
  for (int tries = 0; tries < 50 && !read4(*client, 4); ++tries) {
  }
  for (int i = 0; i < 2; ++i) CHECK_FALSE(read4(*client, 0));
  CHECK(client->alive());
  CHECK_FALSE(read4(*client, 0));
  CHECK_FALSE(client->alive());
  CHECK(client->death().kind == Kind::timeout);
  CHECK(client->death().message.find("3 deadlines in a row") != std::string::npos);
  const auto begin = Clock::now();
  CHECK_FALSE(read4(*client, 4));
  CHECK(Clock::now() - begin < 25ms);  // at once
}

TEST_CASE("C92 requests that time out together are one stall of the server") {
  const Steady steady;
  Script script;
  script.on[Command::region_read] = [](Peer&, Incoming&) {};
  ScriptedServer server(script);
  ClientOptions options = quick_options(20s);
  options.timeouts.access = 200ms;
  auto client = attached(server, options);
  std::vector<std::thread> vcpus;
  for (int i = 0; i < 8; ++i) vcpus.emplace_back([&] { CHECK_FALSE(read4(*client)); });
  for (auto& vcpu : vcpus) vcpu.join();
  CHECK(client->counters().timeouts == 8);
  CHECK(client->alive());
}

TEST_CASE(
    "C93 a server that dies after command k, for every k of a life: an error at once, nothing left "
    "behind") {
  const Steady steady;
  const auto live = [](ScriptedServer& server) {
    Memory ram(0, 4096);
    auto client = server.connect(quick_options(20s));
    if (!client) return false;
    if (!(*client)->attach({&ram.window, 1})) return false;
    std::array<std::byte, 4> data{};
    const int none[] = {-1};
    return (*client)->arm_irqs(wire::kIrqMsix, 0, none).has_value() &&
           (*client)->region_write(0, 0, data).has_value() &&
           (*client)->region_read(0, 0, data).has_value() && (*client)->reset().has_value() &&
           (*client)->disable_irqs(wire::kIrqMsix).has_value() &&
           (*client)->dma_unmap(0, 4096).has_value();
  };
  std::size_t messages = 0;
  {
    ScriptedServer server{Script()};
    REQUIRE(live(server));
    messages = server.log().size();
  }
  CHECK(messages > 20);
  for (std::size_t k = 1; k <= messages; ++k) {
    CAPTURE(k);
    std::size_t seen = 0;
    ScriptedServer* self = nullptr;
    Script script;
    script.handle_config_reads = true;
    script.handle_first_io_fds = true;
    for (std::uint16_t c = 1; c < wire::kCommandLimit; ++c) {
      script.on[static_cast<Command>(c)] = [&](Peer& peer, Incoming& m) {
        if (++seen == k) {
          peer.close();  // as the kernel does for a killed process
        } else {
          self->behave(peer, m);
        }
      };
    }
    ScriptedServer server(script);
    self = &server;
    const auto begin = Clock::now();
    CHECK_FALSE(live(server));
    CHECK(Clock::now() - begin < 10s);
  }
}

TEST_CASE("C93 a server process that is killed is noticed by who waits and by who does not") {
  const Steady steady;
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {  // answers VERSION, and nothing after it
    ::close(ends[0]);
    wire::Header header{};
    char rest[4096];
    if (::recv(ends[1], &header, sizeof header, MSG_WAITALL) != sizeof header) ::_exit(1);
    if (::recv(ends[1], rest, header.size - sizeof header, MSG_WAITALL) < 0) ::_exit(1);
    struct {
      wire::Header header;
      wire::Version version;
    } answer{{header.id, header.command, 20, wire::kTypeReply, 0}, {0, 1}};
    if (::send(ends[1], &answer, 20, MSG_NOSIGNAL) != 20) ::_exit(1);
    for (;;) ::pause();
  }
  ::close(ends[1]);
  auto transport = vfio_user::SocketTransport::adopt(UniqueFd(ends[0]));
  REQUIRE(transport);
  auto client = Client::adopt(std::move(*transport), quick_options(20s));
  REQUIRE(client);
  std::promise<Error> down;
  (*client)->set_down_handler([&](const Error& reason) { down.set_value(reason); });
  const EventLoop loop(**client);
  std::thread vcpu([&] {
    const auto got = read4(**client);
    REQUIRE_FALSE(got);
    CHECK(got.error().kind == Kind::closed);
  });
  ::kill(child, SIGKILL);
  auto reason = down.get_future();
  REQUIRE(reason.wait_for(10s) == std::future_status::ready);
  CHECK(reason.get().message.find("dut: ") == 0);
  vcpu.join();
  ::waitpid(child, nullptr, 0);
}

TEST_CASE(
    "C94 a server that stands still under load and goes on: another device's accesses are not held "
    "up") {
  const Steady steady;
  std::promise<void> gate;
  const auto open = gate.get_future().share();
  ScriptedServer* self = nullptr;
  Script script;
  script.on[Command::region_read] = [&, open](Peer& peer, Incoming& m) {
    open.wait();
    self->behave(peer, m);
  };
  ScriptedServer stuck(script);
  self = &stuck;
  ScriptedServer lively{Script()};
  auto first = attached(stuck, quick_options(60s));
  auto second = attached(lively, quick_options(60s));
  std::vector<std::thread> vcpus;
  for (int i = 0; i < 4; ++i) vcpus.emplace_back([&] { CHECK(read4(*first).has_value()); });
  REQUIRE(stuck.wait_for(Command::region_read, 2));  // the configuration space, and one of the four
  for (int i = 0; i < 500; ++i) CHECK(read4(*second).has_value());
  gate.set_value();
  for (auto& vcpu : vcpus) vcpu.join();
  CHECK(first->alive());
}

TEST_CASE("C95 a half-closed or reset connection is the end of the device, seen at once") {
  const Steady steady;
  for (const int how : {int{SHUT_WR}, int{SHUT_RD}, int{SHUT_RDWR}, -1}) {
    CAPTURE(how);
    Script script;
    script.on[Command::region_read] = [&](Peer& peer, Incoming&) {
      if (how >= 0) peer.shut_down(how);
    };
    script.on[Command::region_write] = [](Peer& peer, Incoming&) { peer.close(); };
    ScriptedServer server(script);
    auto client = attached(server, quick_options(20s));
    const auto begin = Clock::now();
    if (how == SHUT_RD) {
      // Nothing comes in any more at the server, so a request fails in the sending.
      std::thread waiter([&] { CHECK_FALSE(read4(*client)); });
      while (client->alive()) {
        CHECK_FALSE(client->region_write(0, 0, Bytes(4)));
      }
      waiter.join();
    } else if (how == -1) {
      std::thread other([&] { CHECK_FALSE(client->region_write(0, 0, Bytes(4))); });
      CHECK_FALSE(read4(*client));  // the server closes with this one unread or unanswered
      other.join();
    } else {
      const auto got = read4(*client);
      REQUIRE_FALSE(got);
      CHECK(got.error().kind == Kind::closed);
    }
    CHECK_FALSE(client->alive());
    CHECK(Clock::now() - begin < 10s);
  }
}

TEST_CASE(
    "C96 all waiters are released at once when the server goes away, and later calls fail at "
    "once") {
  const Steady steady;
  Script script;
  script.on[Command::region_read] = [](Peer&, Incoming&) {};
  ScriptedServer server(script);
  auto client = attached(server, quick_options(60s));
  std::atomic<int> released{0};
  std::vector<std::thread> vcpus;
  for (int i = 0; i < 8; ++i) {
    vcpus.emplace_back([&] {
      const auto got = read4(*client);
      if (!got && got.error().kind == Kind::closed) ++released;
    });
  }
  REQUIRE(server.wait_for(Command::region_read, 9));
  const auto begin = Clock::now();
  server.stop();
  for (auto& vcpu : vcpus) vcpu.join();
  CHECK(Clock::now() - begin < 10s);  // see below; the deadline is a minute
  CHECK(released == 8);
  CHECK(client->region_write(0, 0, Bytes(4), vfio_user::Write::may_post).error().kind ==
        Kind::closed);
  CHECK_FALSE(client->reset());
  CHECK_FALSE(client->disable_irqs(wire::kIrqMsix));
  CHECK_FALSE(client->dma_map({0, 4096, -1, 0, true, true, {}}));
  CHECK_FALSE(client->region_io_fds(0));
}

TEST_CASE("C96 from EOF until the last of 8 waiters is back it takes less than 100 ms") {
  const Steady steady;
  // The best of some, since the host may be busy with something else for that long.
  auto best = Clock::duration::max();
  for (int tries = 0; tries < 20 && best >= 100ms; ++tries) {
    Script script;
    script.on[Command::region_read] = [](Peer&, Incoming&) {};
    ScriptedServer server(script);
    auto client = attached(server, quick_options(60s));
    std::vector<std::thread> vcpus;
    for (int i = 0; i < 8; ++i) vcpus.emplace_back([&] { CHECK_FALSE(read4(*client)); });
    REQUIRE(server.wait_for(Command::region_read, 9));
    const auto begin = Clock::now();
    server.peer().shut_down(SHUT_RDWR);
    for (auto& vcpu : vcpus) vcpu.join();
    best = std::min(best, Clock::duration(Clock::now() - begin));
  }
  CHECK(best < 100ms);
}

TEST_CASE("C96 close() from another thread releases all waiters") {
  const Steady steady;
  Script script;
  script.twin = true;
  script.on[Command::region_read] = [](Peer&, Incoming&) {};
  ScriptedServer server(script);
  auto client = attached(server, quick_options(60s));
  int told = 0;
  client->set_down_handler([&](const Error&) { ++told; });
  std::vector<std::thread> vcpus;
  for (int i = 0; i < 8; ++i) vcpus.emplace_back([&] { CHECK_FALSE(read4(*client)); });
  REQUIRE(server.wait_for(Command::region_read, 9));
  const auto begin = Clock::now();
  client->close();
  client->close();
  for (auto& vcpu : vcpus) vcpu.join();
  CHECK(Clock::now() - begin < 10s);
  CHECK(told == 0);
}

TEST_CASE("C97 one request that is never answered does not keep later ones from their answers") {
  const Steady steady;
  ScriptedServer* self = nullptr;
  Script script;
  script.on[Command::region_read] = [&](Peer& peer, Incoming& m) {
    if (m.as<wire::RegionAccess>().offset != 0) self->behave(peer, m);
  };
  ScriptedServer server(script);
  self = &server;
  auto client = attached(server, quick_options(1s));
  std::thread lost([&] { CHECK(read4(*client, 0).error().kind == Kind::timeout); });
  REQUIRE(server.wait_for(Command::region_read, 2));
  for (int i = 0; i < 500; ++i) CHECK(read4(*client, 4).has_value());
  lost.join();
  CHECK(read4(*client, 4).has_value());
  CHECK(client->alive());
}

TEST_CASE("C98 a reset that errs or is not answered is an error within its own deadline, no more") {
  const Steady steady;
  for (const bool answers : {true, false}) {
    Script script;
    script.on[Command::device_reset] = [answers](Peer& peer, Incoming& m) {
      CHECK(m.payload.empty());
      if (answers) peer.error(m.header, EBUSY);
    };
    ScriptedServer server(script);
    ClientOptions options = quick_options(20s);
    options.timeouts.reset = 100ms;
    auto client = attached(server, options);
    const auto done = client->reset();
    REQUIRE_FALSE(done);
    CHECK(done.error().message.find("DEVICE_RESET") != std::string::npos);
    CHECK(done.error().kind == (answers ? Kind::server : Kind::timeout));
    CHECK(read4(*client).has_value());
  }
}

TEST_CASE("C99 a client attaches once; a new client of a restarted server starts from nothing") {
  const Steady steady;
  ScriptedServer first{Script()};
  auto client = attached(first, quick_options());
  const auto again = client->attach({});
  REQUIRE_FALSE(again);
  CHECK(again.error().code == EALREADY);
  first.stop();
  CHECK_FALSE(read4(*client));
  client.reset();
  ScriptedServer second{Script()};
  CHECK(read4(*attached(second, quick_options())).has_value());
}

TEST_CASE("C100 1000 attaches and detaches leave no descriptor, thread or mapping behind") {
  const Steady steady;
  const auto mappings = [] {
    std::size_t lines = 0;
    std::FILE* const maps = std::fopen("/proc/self/maps", "re");
    for (int c = 0; (c = std::fgetc(maps)) != EOF;) lines += c == '\n' ? 1 : 0;
    std::fclose(maps);
    return lines;
  };
  const UniqueFd file = memory_file(1 << 16);
  std::size_t before = 0;
  for (int i = 0; i < 1000; ++i) {
    Script script;
    script.twin = i % 2 == 0;
    script.regions[2] = {7, 1 << 16, 0, sparse_tail({{4096, 4096}}), {file.get()}};
    ScriptedServer server(script);
    const DmaWindow window{0, 1 << 16, file.get(), 0, true, true, {}};
    auto client = attached(server, quick_options(20s), {&window, 1});
    if (i == 100) before = mappings();
  }
  CHECK(mappings() <= before + 20);  // the allocator's own
}

TEST_CASE("C100 closing while the server hangs takes no time") {
  const Steady steady;
  std::promise<void> gate;
  const auto open = gate.get_future().share();
  Script script;
  script.twin = true;
  script.on[Command::region_read] = [open](Peer&, Incoming&) { open.wait(); };
  ScriptedServer server(script);
  auto client = attached(server, quick_options(60s));
  std::thread vcpu([&] { CHECK_FALSE(read4(*client)); });
  REQUIRE(server.wait_for(Command::region_read, 2));
  const auto begin = Clock::now();
  client->close();
  vcpu.join();
  client.reset();
  CHECK(Clock::now() - begin < 5s);
  gate.set_value();
}

TEST_CASE("C74 the event loop notices an idle death, is told once, and does not spin afterwards") {
  const Steady steady;
  for (const bool twin : {false, true}) {
    Script script;
    script.twin = twin;
    ScriptedServer server(script);
    auto client = attached(server, quick_options());
    std::atomic<int> told{0};
    std::promise<void> down;
    client->set_down_handler([&](const Error&) {
      if (++told == 1) down.set_value();
    });
    const EventLoop loop(*client);
    server.stop();
    REQUIRE(down.get_future().wait_for(10s) == std::future_status::ready);
    const auto wake_ups = loop.wake_ups();
    std::this_thread::sleep_for(50ms);
    CHECK(loop.wake_ups() <= wake_ups + 2);
    CHECK(told == 1);
    std::atomic<int> late{0};
    client->set_down_handler([&](const Error&) { ++late; });
    CHECK(late == 1);
  }
}

TEST_CASE(
    "a protocol error seen by one thread, or on the twin socket, releases the others at once") {
  const Steady steady;
  for (const bool on_twin : {false, true}) {
    Script script;
    script.twin = true;
    script.on[Command::region_read] = [](Peer&, Incoming&) {};
    ScriptedServer server(script);
    auto client = attached(server, quick_options(60s));
    std::vector<std::thread> vcpus;
    for (int i = 0; i < 4; ++i) {
      vcpus.emplace_back([&] { CHECK(read4(*client).error().kind == Kind::protocol); });
    }
    REQUIRE(server.wait_for(Command::region_read, 5));
    Peer& peer = on_twin ? server.twin() : server.peer();
    peer.send(bytes_of(wire::Header{1, 9, 3, wire::kTypeReply, 0}));
    for (auto& vcpu : vcpus) vcpu.join();
    CHECK_FALSE(client->alive());
    CHECK((client->death().message.find("twin socket") != std::string::npos) == on_twin);
    // Both sockets are shut: the server is told, before anybody closes the client.
    CHECK_FALSE(server.twin().next(20s));
    char byte = 0;
    CHECK(::recv(server.twin().fd(), &byte, 1, MSG_DONTWAIT) == 0);
    pollfd main_socket{server.peer().fd(), 0, 0};
    CHECK(::poll(&main_socket, 1, 20000) == 1);
    CHECK((main_socket.revents & POLLHUP) != 0);
  }
}

}  // namespace
}  // namespace outboard::protocol_test
