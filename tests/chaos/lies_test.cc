// Every item of groups B to H of the conformance list, told to a running machine (issue 5, item 3).
#include <atomic>
#include <chrono>
#include <csignal>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>
#include <fmt/core.h>

#include "tests/chaos/disk.h"
#include "tests/chaos/liar.h"
#include "tests/micro/guest_run.h"
#include "tests/protocol/scripted_server.h"

using namespace outboard;
using namespace outboard::chaos;
using namespace std::chrono_literals;
using micro::GuestRun;
using micro::MemoryConsole;
using vmm::ExitStatus;
using Clock = std::chrono::steady_clock;

namespace {

constexpr auto kDeadline = 1s;

// A machine whose guest works with a device, and the liar behind it.
class LiedTo {
 public:
  explicit LiedTo(const std::vector<Lie>& lies, vmm::OnGiveUp give_up)
      : liar_({.socket = disk_ / "machine.sock", .server = disk_.command(), .deadline = kDeadline}),
        thread_([this, lies] {
          wrongs = liar_.run(lies);
          over_ = true;
        }) {
    config.vcpus = 2;
    vmm::DeviceConfig device;
    device.name = "disk";
    device.socket = disk_ / "machine.sock";
    device.on_disconnect = vmm::OnDisconnect::reconnect;
    device.reconnect.last_delay = 20ms;
    device.reconnect.give_up = give_up;
    device.timeouts.access = kDeadline;
    device.timeouts.dma = kDeadline;
    device.timeouts.reset = kDeadline;
    config.devices.push_back(device);
  }
  ~LiedTo() { end(); }
  void end() {
    liar_.stop();
    if (thread_.joinable()) thread_.join();
  }
  enum class End { of_guest, by_signal_in_a_hang, of_itself };
  // Until `count` lies are told, and then to such an end.
  void run(GuestRun& run, std::size_t count, End how) {
    std::thread waiter;
    micro::run_guest(
        config, run,
        [&](vmm::Machine& machine, vmm::EventLoop& loop, MemoryConsole& console) {
          if (how == End::of_itself) return;
          waiter = std::thread([&, count, how] {
            while (liar_.told() < count && !over_) std::this_thread::sleep_for(5ms);
            if (over_) return;
            if (how == End::by_signal_in_a_hang) {
              liar_.hang();
              asked_to_end = Clock::now();
              machine.request_stop({ExitStatus::signal_base, SIGINT, "ended by SIGINT"});
            } else {
              loop.post([&console] { console.send("x"); });
            }
          });
        },
        300s);
    ended = Clock::now();
    over_ = true;
    if (waiter.joinable()) waiter.join();
    end();
  }

  vmm::MachineConfig config = micro::guest_config("nvme_lies");
  std::vector<std::string> wrongs;
  Clock::time_point asked_to_end;
  Clock::time_point ended;

 private:
  Disk disk_{{.doorbells = "trap"}};
  Liar liar_;
  std::atomic<bool> over_{false};
  std::thread thread_;
};

std::string joined(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& line : lines) out += "\n  " + line;
  return out;
}

}  // namespace

TEST_CASE("every lie of groups B to H is survived: the guest works on and its data are right") {
  const protocol_test::Steady steady;
  const auto lies = all_lies();
  GuestRun run;
  {
    LiedTo machine(lies, vmm::OnGiveUp::stop);
    machine.run(run, lies.size(), LiedTo::End::of_guest);
    CHECK_MESSAGE(machine.wrongs.empty(), joined(machine.wrongs));
  }
  CHECK_MESSAGE(run.reason.status == ExitStatus::powered_off, run.reason.message);
  CHECK_MESSAGE(run.console.ends_with("PASSED\n"), run.console);
  MESSAGE(lies.size() << " lies: " << run.statistics.substr(run.statistics.find("device 'disk'")));
}

TEST_CASE("a lie that makes it another device costs the device, and says what differs") {
  for (const Lie& lie : last_lies()) {
    CAPTURE(lie.what);
    const protocol_test::Steady steady;
    GuestRun run;
    LiedTo machine({lie}, vmm::OnGiveUp::stop);
    machine.run(run, 1, LiedTo::End::of_itself);
    CHECK_MESSAGE(machine.wrongs.empty(), joined(machine.wrongs));
    CHECK(run.reason.status == ExitStatus::device_lost);
    CHECK_MESSAGE(
        run.reason.message.find("another device is behind its socket: ") != std::string::npos,
        run.reason.message);
  }
}

TEST_CASE("C100 a machine ends at once while its server hangs") {
  const protocol_test::Steady steady;
  GuestRun run;
  LiedTo machine({lies_in_time().front()}, vmm::OnGiveUp::stop);
  machine.run(run, 1, LiedTo::End::by_signal_in_a_hang);
  CHECK(run.reason.exit_code() == 128 + SIGINT);
  CHECK(machine.ended - machine.asked_to_end < kDeadline * 5);
}

TEST_CASE("every item of groups B to H is told, or declared untold with where it is tested") {
  std::set<int> items;
  for (const auto& list : {all_lies(), last_lies()}) {
    for (const Lie& lie : list) items.insert(std::stoi(lie.item.substr(1)));
  }
  for (const auto& [item, where] : untold_items()) {
    CAPTURE(item);
    CHECK(!where.empty());
    CHECK_MESSAGE((!items.contains(item) || item == 100), "it is told, so it must not be declared");
    items.insert(item);
  }
  for (int item = 16; item <= 100; ++item) CHECK_MESSAGE(items.contains(item), item);
}
