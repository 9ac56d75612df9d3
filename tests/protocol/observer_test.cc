// What a client says of its messages: to an observer each one once, and in its counters.
#include <map>
#include <numeric>

#include "tests/protocol/check.h"
#include "tests/protocol/scripted_server.h"
#include "vfio_user/message_observer.h"

namespace outboard::protocol_test {
namespace {

using vfio_user::ObservedMessage;
using vfio_user::Write;
using End = ObservedMessage::End;

class Recorder final : public vfio_user::MessageObserver {
 public:
  void message(const ObservedMessage& message) override {
    const std::lock_guard lock(mutex_);
    all_.push_back(message);
  }
  std::vector<ObservedMessage> all() const {
    const std::lock_guard lock(mutex_);
    return all_;
  }
  std::vector<ObservedMessage> of(Command command) const {
    auto found = all();
    std::erase_if(found, [&](const auto& message) { return message.command != command; });
    return found;
  }
  ObservedMessage last() const { return all().back(); }

 private:
  mutable std::mutex mutex_;
  std::vector<ObservedMessage> all_;
};

ClientOptions observed_by(Recorder& recorder, std::chrono::milliseconds deadline = 10s) {
  ClientOptions options = quick_options(deadline);
  options.observer = &recorder;
  return options;
}

std::uint64_t sum(const std::array<std::uint64_t, wire::kCommandLimit>& figures) {
  return std::accumulate(figures.begin(), figures.end(), std::uint64_t{0});
}

}  // namespace

TEST_CASE("an observer hears of each message once, with its id, size and times in order") {
  const Steady steady;
  Recorder recorder;
  ScriptedServer server{Script()};
  Memory ram(0x10000, 4096);
  const auto before = std::chrono::steady_clock::now();
  auto client = attached(server, observed_by(recorder), {&ram.window, 1});
  Bytes data(4);
  CHECK(client->region_read(0, 8, data));
  CHECK(client->region_write(0, 12, data, Write::wait));
  const std::vector<Logged> log = server.log();
  const std::vector<ObservedMessage> heard = recorder.all();
  REQUIRE(heard.size() == log.size());
  for (const Logged& sent : log) {
    CAPTURE(wire::name_of(sent.command()));
    const auto same = std::count_if(heard.begin(), heard.end(), [&](const auto& message) {
      return message.id == sent.header.id && message.command == sent.command() &&
             message.bytes_out == sent.header.size;
    });
    CHECK(same == 1);
  }
  for (const ObservedMessage& message : heard) {
    CHECK_FALSE(message.from_server);
    CHECK(message.end == End::answered);
    CHECK(message.bytes_in >= sizeof(wire::Header));
    CHECK(message.sent >= before);
    CHECK(message.ended >= message.sent);
    CHECK(message.ended <= std::chrono::steady_clock::now());
  }
}

TEST_CASE("an observer is told what each message is about: region, interrupt or address") {
  const Steady steady;
  Recorder recorder;
  ScriptedServer server{Script()};
  Memory ram(0x10000, 4096);
  auto client = attached(server, observed_by(recorder), {&ram.window, 1});

  const ObservedMessage map = recorder.of(Command::dma_map).at(0);
  CHECK(map.address == 0x10000);
  CHECK(map.size == 4096);
  CHECK(recorder.of(Command::device_get_region_info).at(7).index == wire::kRegionConfig);
  CHECK(recorder.of(Command::device_get_irq_info).at(2).index == wire::kIrqMsix);
  CHECK(recorder.of(Command::device_get_region_io_fds).at(0).index == 0);

  Bytes data(8);
  CHECK(client->region_read(0, 0x40, data));
  CHECK(recorder.last().index == 0);
  CHECK(recorder.last().address == 0x40);
  CHECK(recorder.last().size == 8);
  CHECK(recorder.last().bytes_out == 32);
  CHECK(recorder.last().bytes_in == 40);
  const int none[] = {-1, -1};
  CHECK(client->arm_irqs(wire::kIrqMsix, 3, none));
  CHECK(recorder.last().command == Command::device_set_irqs);
  CHECK(recorder.last().index == wire::kIrqMsix);
  CHECK(recorder.last().address == 3);
  CHECK(recorder.last().size == 2);
  CHECK(client->dma_unmap(0x10000, 4096));
  CHECK(recorder.last().address == 0x10000);
}

TEST_CASE("an observer hears how a message ended: posted, refused, timed out, connection lost") {
  const Steady steady;
  Recorder recorder;
  Script script;
  script.on[Command::device_reset] = [](Peer& peer, Incoming& m) { peer.error(m.header, EBUSY); };
  script.on[Command::region_read] = [](Peer&, Incoming&) {};
  ScriptedServer server(script);
  ClientOptions options = observed_by(recorder);
  options.timeouts.access = 100ms;
  options.timeouts_until_dead = 2;
  auto client = attached(server, options);
  Bytes data(4);

  CHECK(client->region_write(0, 4, data, Write::may_post));
  CHECK(recorder.last().end == End::posted);
  CHECK(recorder.last().command == Command::region_write);
  CHECK(recorder.last().address == 4);
  CHECK(recorder.last().bytes_out == 36);
  CHECK(recorder.last().bytes_in == 0);
  CHECK(recorder.last().ended == recorder.last().sent);

  CHECK_FALSE(client->reset());
  CHECK(recorder.last().end == End::refused);
  CHECK(recorder.last().bytes_in == 16);

  CHECK_FALSE(client->region_read(0, 0, data));
  CHECK(recorder.last().end == End::timed_out);
  CHECK(recorder.last().bytes_in == 0);
  CHECK(recorder.last().ended - recorder.last().sent >= 100ms);

  std::thread waits([&] {
    Bytes into(4);
    CHECK_FALSE(client->region_read(0, 8, into));
  });
  REQUIRE(server.wait_for(Command::region_read, 3));  // attach() reads the configuration space
  client->close();
  waits.join();
  CHECK(recorder.last().end == End::lost);
  CHECK(recorder.last().address == 8);
}

TEST_CASE("an observer hears of the server's requests, on both sockets") {
  const Steady steady;
  for (const bool twin : {false, true}) {
    CAPTURE(twin);
    Recorder recorder;
    Script script;
    script.twin = twin;
    ScriptedServer server(script);
    Memory ram(0x10000, 4096);
    auto client = attached(server, observed_by(recorder), {&ram.window, 1});
    const EventLoop loop(*client);
    Peer& socket = twin ? server.twin() : server.peer();
    CHECK(socket.request(0x77, Command::dma_read, bytes_of(wire::DmaAccess{0x10010, 64})));
    CHECK(
        socket.request(0x78, Command::dma_write, bytes_of(wire::DmaAccess{0x90000, 4}) + Bytes(4)));
    const auto deadline = std::chrono::steady_clock::now() + 10s;
    while (recorder.of(Command::dma_write).empty() && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::yield();
    }
    const ObservedMessage read = recorder.of(Command::dma_read).at(0);
    CHECK(read.from_server);
    CHECK(read.id == 0x77);
    CHECK(read.address == 0x10010);
    CHECK(read.size == 64);
    CHECK(read.bytes_in == 32);
    CHECK(read.bytes_out == 96);
    CHECK(read.end == End::answered);
    CHECK(read.ended >= read.sent);
    const ObservedMessage write = recorder.of(Command::dma_write).at(0);
    CHECK(write.end == End::refused);  // no window is there
    CHECK(write.bytes_out == 16);
  }
}

TEST_CASE("bytes are counted by command, as they went over the wire, posted writes included") {
  const Steady steady;
  for (const bool multiple : {false, true}) {
    CAPTURE(multiple);
    Script script;
    script.capabilities = multiple ? R"("write_multiple":true)" : R"("write_multiple":false)";
    ScriptedServer server(script);
    auto client = attached(server, quick_options(10s));
    Bytes data(4);
    for (std::uint64_t i = 0; i < 100; ++i) {
      CHECK(client->region_write(0, 4 * i, data, Write::may_post));
    }
    CHECK(client->region_write(0, 0, data, Write::wait));
    CHECK(client->region_read(0, 0, data));
    const auto counters = client->counters();
    std::array<std::uint64_t, wire::kCommandLimit> received{};
    std::array<std::uint64_t, wire::kCommandLimit> messages{};
    for (const Logged& entry : server.log()) {
      received.at(entry.header.command) += entry.header.size;
      ++messages.at(entry.header.command);
    }
    CHECK(counters.bytes_out == received);
    CHECK(sum(counters.bytes_out) == counters.bytes_sent);
    CHECK(sum(counters.bytes_in) == counters.bytes_received);
    // The reply to a read of 4 bytes, and that of the configuration space at attach.
    CHECK(counters.bytes_in[9] == (32 + 4) + (32 + 256));
    auto sent = counters.sent;
    sent[10] += counters.posted_alone;
    CHECK(sent == messages);
    CHECK(counters.posted == 100);
  }
}

TEST_CASE(
    "attach needs 4 dependent round trips, VERSION included, and a batch counts as one; afterwards "
    "each request that is waited for is one") {
  const Steady steady;
  const UniqueFd file = memory_file(8192);
  Script script;
  script.regions[2] = {7, 8192, 0, sparse_tail({{4096, 4096}}), {file.get()}};
  script.regions[4] = {3, 4096, 0, {}, {}};
  ScriptedServer server(script);
  std::vector<DmaWindow> windows;
  for (std::uint64_t i = 0; i < 8; ++i) {
    windows.push_back({i << 32, 8192, file.get(), 0, true, true, {}});
  }
  auto client = attached(server, quick_options(10s), windows);
  CHECK(client->counters().dependent_round_trips == 4);
  Bytes data(4);
  for (int i = 0; i < 10; ++i) CHECK(client->region_read(0, 0, data));
  CHECK(client->counters().dependent_round_trips == 14);
  CHECK(client->region_write(0, 0, data, Write::wait));
  CHECK(client->region_write_and_io_fds(0, 0, data).written);  // two requests in flight together
  CHECK(client->counters().dependent_round_trips == 16);

  // One request at a time: each is a round trip of its own.
  ScriptedServer other{Script()};
  Memory ram(0x10000, 4096);
  auto single = attached(other, quick_options(10s), {&ram.window, 1});
  CHECK(single->counters().dependent_round_trips == other.log().size());
}

}  // namespace outboard::protocol_test
