// What it costs a guest's access that its server may die and come back: nothing that is counted
// here.
#include <doctest/doctest.h>

#include "devices/region_window.h"
#include "tests/cost/calls.h"
#include "tests/protocol/scripted_server.h"

namespace outboard::cost_test {
namespace {

using namespace outboard::protocol_test;

constexpr std::uint64_t kAccesses = 2000;

struct Window {
  explicit Window(bool resumable)
      : server(script(resumable)),
        client(attached(server, options())),
        link(client, {.hold = 8s, .log = {}, .name = "dut", .on_down = {}}),
        window({0, 4096, true, true}, {}, link, counters, log) {}

  static ClientOptions options() { return quick_options(20s); }
  static Script script(bool resumable) {
    Script script;
    script.twin = true;
    script.keep_log = false;
    if (resumable) {
      script.capabilities +=
          R"(,"resume":{"id":"0123456789abcdef0123456789abcdef","resumed":false})";
    }
    return script;
  }

  ScriptedServer server;
  std::shared_ptr<Client> client;
  EventLoop loop{*client};
  devices::AccessCounters counters;
  devices::GuestLog log{"dut", {}};
  devices::DeviceLink link;
  devices::RegionWindow window;
};

}  // namespace

TEST_CASE("a guest's read through the link costs what the client's costs: no lock, clock, memory") {
  Window bench(true);
  std::array<std::byte, 4> data{};
  for (int i = 0; i < 10; ++i) bench.window.read(0, data);
  const Calls before = calls();
  for (std::uint64_t i = 0; i < kAccesses; ++i) bench.window.read(0, data);
  const Calls cost = calls() - before;
  CHECK(bench.counters.bar_reads == kAccesses + 10);
  CHECK(cost.sends == kAccesses);
  CHECK(cost.receives <= kAccesses);
  CHECK(cost.polls <= kAccesses + 20);
  CHECK(cost.others == 0);
  CHECK(cost.clocks <= kAccesses + 20);
  CHECK(cost.allocations == 0);
}

TEST_CASE("a guest's posted write through the link is one send, remembered for a resume or not") {
  for (const bool resumable : {false, true}) {
    CAPTURE(resumable);
    Window bench(resumable);
    const std::array<std::byte, 4> data{};
    for (int i = 0; i < 10; ++i) bench.window.write(8, data);
    const Calls before = calls();
    for (std::uint64_t i = 0; i < kAccesses; ++i) bench.window.write(8 * (i % 200), data);
    const Calls cost = calls() - before;
    CHECK(bench.client->counters().posted >= kAccesses);
    CHECK(cost.sends == kAccesses);
    CHECK(cost.system_calls() == kAccesses);
    CHECK(cost.clocks == 0);
    CHECK(cost.allocations == 0);
  }
}

}  // namespace outboard::cost_test
