// A device that hangs, lies or dies under a running guest: the machine goes on, or ends with the
// status that the configuration asks for.
#include <chrono>
#include <cstdlib>

#include <doctest/doctest.h>

#include "tests/micro/guest_run.h"
#include "tests/micro/peer.h"

using namespace outboard;
using namespace outboard::micro;
using namespace std::chrono_literals;
using vmm::ExitStatus;

namespace {

using Clock = std::chrono::steady_clock;

vmm::MachineConfig config_with(const std::string& guest, const Peer& peer,
                               vmm::OnDisconnect on_disconnect = vmm::OnDisconnect::detach) {
  auto config = guest_config(guest);
  vmm::DeviceConfig device;
  device.name = "peer";
  device.socket = peer.socket();
  device.on_disconnect = on_disconnect;
  config.devices.push_back(device);
  return config;
}

// Runs `action` in the main thread's place when the guest has printed "ready".
WithMachine when_ready(std::function<void(vmm::Machine&, vmm::EventLoop&)> action) {
  return [action = std::move(action)](vmm::Machine& machine, vmm::EventLoop& loop,
                                      MemoryConsole& console) {
    console.on_output([&machine, &loop, &console, action](const std::string& text) {
      if (text != "ready\n") return;
      loop.post([&machine, &loop, &console, action] {
        console.outside().run([&] { action(machine, loop); });
      });
    });
  };
}

void check_passed(const GuestRun& run) {
  CHECK_MESSAGE(run.reason.status == ExitStatus::powered_off, run.reason.message);
  CHECK_MESSAGE(run.console.ends_with("PASSED\n"), run.console);
}

// Ends the machine from the main thread once its statistics have this line.
void stop_when(vmm::Machine& machine, vmm::EventLoop& loop, const std::string& line) {
  if (machine.statistics().find(line) != std::string::npos) {
    machine.request_stop({ExitStatus::powered_off, 0, "seen"});
    return;
  }
  loop.post([&machine, &loop, line] { stop_when(machine, loop, line); });
}

}  // namespace

TEST_CASE(
    "C45 a file that its server shortens under the guest: the machine lives, the device dies") {
  for (const auto policy : {vmm::OnDisconnect::detach, vmm::OnDisconnect::stop}) {
    CAPTURE(static_cast<int>(policy));
    Peer peer({.mapped_bar2 = true});
    GuestRun run;
    run_guest(config_with("shrink", peer, policy), run,
              when_ready([&](auto&, auto&) { peer.shorten_bar2(0x1000); }));
    if (policy == vmm::OnDisconnect::detach) {
      check_passed(run);
    } else {
      CHECK(run.reason.exit_code() == 8);
      CHECK_MESSAGE(run.reason.message.find("shortened a file") != std::string::npos,
                    run.reason.message);
    }
  }
}

TEST_CASE("C74 C96 a server that dies, with on_disconnect = detach: the guest reads all ones") {
  for (const bool mapped : {false, true}) {
    CAPTURE(mapped);
    auto peer = std::make_unique<Peer>(PeerOptions{.mapped_bar2 = mapped});
    GuestRun run;
    run_guest(config_with("orphan", *peer), run, when_ready([&](auto&, auto&) { peer.reset(); }));
    check_passed(run);
  }
}

TEST_CASE("C73 ERR and REQ are counted; with on_error or on_request = stop they end the machine") {
  SUBCASE("log") {
    Peer peer;
    GuestRun run;
    const std::string line = "its server signalled 3 errors and 2 removal requests";
    run_guest(config_with("signals", peer), run,
              when_ready([&](auto& machine, auto& loop) { stop_when(machine, loop, line); }));
    CHECK_MESSAGE(run.reason.message == "seen", run.statistics);
  }
  SUBCASE("on_error = stop") {
    Peer peer;
    GuestRun run;
    auto config = config_with("signals", peer);
    config.devices[0].on_error = vmm::OnSignal::stop;
    run_guest(config, run);
    CHECK(run.reason.exit_code() == 8);
    CHECK(run.reason.message ==
          "device 'peer': its server reports an unrecoverable error; on_error = \"stop\"");
  }
  SUBCASE("on_request = stop") {
    Peer peer;
    GuestRun run;
    auto config = config_with("signals", peer);
    config.devices[0].on_request = vmm::OnSignal::stop;
    run_guest(config, run);
    CHECK(run.reason.exit_code() == 8);
    CHECK(run.reason.message ==
          "device 'peer': its server asks for its removal; on_request = \"stop\"");
  }
}

TEST_CASE("C98 the guest reboots although DEVICE_RESET is answered late, or never") {
  SUBCASE("late: the device is there again") {
    Peer peer({.reset_takes = 300ms});
    GuestRun run;
    auto config = config_with("reboot_once", peer);
    config.devices[0].timeouts.reset = 50ms;
    run_guest(config, run);
    check_passed(run);
    CHECK_MESSAGE(run.console.find("device 1b36") != std::string::npos, run.console);
  }
  SUBCASE("never: the device is dead") {
    Peer peer({.reset_takes = 5min});
    GuestRun run;
    auto config = config_with("reboot_once", peer);
    config.devices[0].timeouts.reset = 50ms;
    config.devices[0].timeouts.access = 50ms;
    const auto begin = Clock::now();
    run_guest(config, run);
    check_passed(run);
    CHECK(Clock::now() - begin < 30s);
  }
}

TEST_CASE("C100 the machine ends at once while its server sits in the middle of an access") {
  Peer peer;
  GuestRun run;
  Clock::time_point asked;
  run_guest(config_with("hang", peer), run,
            [&](vmm::Machine& machine, vmm::EventLoop& loop, MemoryConsole&) {
              static std::function<void()> look;
              look = [&] {
                if (peer.hangs() == 0) return loop.post(look);
                asked = Clock::now();
                machine.request_stop({ExitStatus::powered_off, 0, "enough"});
              };
              loop.post(look);
            });
  CHECK(run.reason.message == "enough");
  CHECK(peer.hangs() == 1);
  CHECK(Clock::now() - asked < 3s);  // its deadline is 5 s
}

TEST_CASE("C70 a storm of interrupts: the guest takes them and works on, the main loop answers") {
  const bool full = std::getenv("OUTBOARD_FULL") != nullptr;
  Peer peer({.scratch = full ? 1000000U : 50000U});
  GuestRun run;
  Clock::duration worst{};
  run_guest(config_with("storm", peer), run,
            [&](vmm::Machine&, vmm::EventLoop& loop, MemoryConsole&) {
              static std::function<void(Clock::time_point)> beat;
              beat = [&](Clock::time_point posted) {
                worst = std::max(worst, Clock::now() - posted);
                (void)loop.after(5ms, [&] { loop.post([&, now = Clock::now()] { beat(now); }); });
              };
              beat(Clock::now());
            });
  check_passed(run);
  CHECK(worst < 2s);
}
