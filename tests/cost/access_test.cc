// What an access costs the thread that makes it, beyond the time of the server: counts, which no
// busy machine can blur.
#include <chrono>

#include <doctest/doctest.h>

#include "tests/cost/calls.h"
#include "tests/protocol/scripted_server.h"

namespace outboard::cost_test {
namespace {

using namespace outboard::protocol_test;

constexpr std::uint64_t kAccesses = 2000;

struct Cost {
  Calls calls;
  std::uint64_t ticks = 0;  // of 5 ms, begun
};

template <class Access>
Cost cost_of(const Access& access) {
  for (int i = 0; i < 10; ++i) access();  // what is made once
  const auto start = std::chrono::steady_clock::now();
  const Calls before = calls();
  for (std::uint64_t i = 0; i < kAccesses; ++i) access();
  const Calls cost = calls() - before;
  return {cost, static_cast<std::uint64_t>((std::chrono::steady_clock::now() - start) / 5ms) + 1};
}

// A server that is asked nothing but accesses, as the machine attaches it: watched by an event
// loop.
struct Bench {
  explicit Bench(bool twin, std::chrono::microseconds poll = {})
      : server(script(twin)), client(attached(server, options(poll))) {}

  static vfio_user::ClientOptions options(std::chrono::microseconds poll) {
    vfio_user::ClientOptions options = quick_options(20s);
    options.reply_poll = poll;
    return options;
  }

  static Script script(bool twin) {
    Script script;
    script.twin = twin;
    script.keep_log = false;
    return script;
  }

  ScriptedServer server;
  std::unique_ptr<Client> client;
  EventLoop loop{*client};
};

// Of kAccesses trapped reads of 4 bytes, each answered in full.
Cost cost_of_reads(Bench& bench) {
  std::array<std::byte, 4> data{};
  bool good = true;
  const Cost cost =
      cost_of([&] { good = good && bench.client->region_read(0, 0, data).value_or(0) == 4; });
  CHECK(good);
  return cost;
}

}  // namespace

TEST_CASE("a trapped read is one send, one wait and one receive, with or without a twin socket") {
  for (const bool twin : {true, false}) {
    CAPTURE(twin);
    Bench bench(twin);
    const Cost cost = cost_of_reads(bench);
    CHECK(cost.calls.sends == kAccesses);
    CHECK(cost.calls.receives <= kAccesses);  // the event loop may have been there first
    // A signal, or a wake-up that turns out to be for another, may make it look twice.
    CHECK(cost.calls.polls <= kAccesses + 20);
    // The event loop is told once a tick at most that the connection is busy, and that it was.
    CHECK(cost.calls.watches <= 2 * cost.ticks);
    CHECK(cost.calls.others == 0);
    CHECK(cost.calls.clocks <= kAccesses + 20);
    CHECK(cost.calls.allocations == 0);
  }
}

TEST_CASE("a thread that polls for its reply never sleeps while the reply comes in time") {
  Bench bench(true, 20s);
  const Cost cost = cost_of_reads(bench);
  CHECK(cost.calls.sends == kAccesses);
  CHECK(cost.calls.polls == 0);
  CHECK(cost.calls.others == 0);
  CHECK(cost.calls.allocations == 0);
}

TEST_CASE("where the reply never comes in time, polling is all but given up") {
  Bench bench(true, 1us);
  const Cost cost = cost_of_reads(bench);
  CHECK(cost.calls.receives <= kAccesses + kAccesses / 4);
  CHECK(cost.calls.polls >= kAccesses - kAccesses / 4);
}

TEST_CASE("a write that waits costs what a read costs") {
  Bench bench(true);
  const std::array<std::byte, 4> data{};
  bool good = true;
  const Cost cost = cost_of([&] {
    good = good && bench.client->region_write(0, 0, data, vfio_user::Write::wait).has_value();
  });
  CHECK(good);
  CHECK(cost.calls.sends == kAccesses);
  CHECK(cost.calls.receives <= kAccesses);
  CHECK(cost.calls.polls <= kAccesses + 20);
  CHECK(cost.calls.watches <= 2 * cost.ticks);
  CHECK(cost.calls.others == 0);
  CHECK(cost.calls.clocks <= kAccesses + 20);
  CHECK(cost.calls.allocations == 0);
}

TEST_CASE("a posted write is one send and nothing else") {
  Bench bench(true);
  const std::array<std::byte, 4> data{};
  bool good = true;
  const Cost cost = cost_of([&] {
    good = good && bench.client->region_write(0, 0, data, vfio_user::Write::may_post).has_value();
  });
  CHECK(good);
  CHECK(bench.client->counters().posted >= kAccesses);
  CHECK(cost.calls.sends == kAccesses);
  CHECK(cost.calls.system_calls() == kAccesses);
  CHECK(cost.calls.clocks == 0);
  CHECK(cost.calls.allocations == 0);
}

}  // namespace outboard::cost_test
