// The server is killed at every message of a machine's life (issue 5, item 1 and its proof): before
// it has handled it, and after it has and before its answer is out.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "tests/chaos/disk.h"
#include "tests/chaos/nvme_process.h"
#include "tests/chaos/wire_tap.h"
#include "tests/micro/guest_run.h"
#include "tests/protocol/scripted_server.h"

using namespace outboard;
using namespace outboard::chaos;
using namespace std::chrono_literals;
using micro::GuestRun;
using micro::MemoryConsole;
using vmm::ExitStatus;
using vmm::OnDisconnect;
using Clock = std::chrono::steady_clock;

namespace {

enum class Moment { before, after };

// Between the machine and its server: kills it at the message that is told, once, and brings it
// back for the next connection.
class Killer {
 public:
  Killer(Disk& disk, std::size_t at, Moment moment)
      : server_(disk.command(), disk / "server.sock"),
        listener_(listen_at(disk / "machine.sock")),
        stop_(::eventfd(0, EFD_CLOEXEC)),
        at_(at),
        moment_(moment),
        thread_([this] { run(); }) {}
  ~Killer() { end(); }

  void end() {
    ::eventfd_write(stop_.get(), 1);
    if (thread_.joinable()) thread_.join();
  }
  // Messages of the machine so far, replies not counted.
  [[nodiscard]] std::size_t messages() const { return messages_; }
  [[nodiscard]] bool killed() const { return killed_; }
  [[nodiscard]] Command victim() const { return victim_; }

 private:
  void run() {
    for (;;) {
      pollfd fds[2] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
      if (::poll(fds, 2, -1) < 0) continue;
      if (fds[1].revents != 0) break;
      UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!client || (!server_.started() && !server_.start())) continue;
      serve(WireTap(std::move(client), connect_to(server_.socket())));
    }
    if (server_.started()) CHECK(server_.stop() == 0);
  }

  void serve(WireTap tap) {
    for (;;) {
      auto event = tap.next(10s);
      if (event.kind == WireTap::Event::Kind::nothing) continue;
      if (event.kind != WireTap::Event::Kind::message) return;
      const bool command = event.from == WireTap::From::client && !event.message.is_reply();
      if (command && ++messages_ == at_) {
        victim_ = event.message.command();
        if (moment_ == Moment::after) let_it_be_handled(tap, event);
        server_.kill();
        killed_ = true;
        return;
      }
      if (!tap.pass(event)) return;
    }
  }

  // The answer, if there is to be one, stays here.
  static void let_it_be_handled(WireTap& tap, const WireTap::Event& event) {
    if (!tap.pass(event)) return;
    if ((event.message.header.flags & wire::kNoReply) != 0) {
      (void)tap.ask_server(Command::device_get_info, bytes_of(wire::DeviceInfo{16, 0, 0, 0}));
      return;
    }
    for (;;) {
      auto reply = tap.next(10s);
      if (reply.kind != WireTap::Event::Kind::message) return;
      if (reply.from == WireTap::From::client) continue;  // sent and never received
      if (reply.message.is_reply() && reply.message.header.id == event.message.header.id) return;
      if (!tap.pass(reply)) return;
    }
  }

  NvmeProcess server_;
  const UniqueFd listener_;
  const UniqueFd stop_;
  const std::size_t at_;
  const Moment moment_;
  std::atomic<std::size_t> messages_{0};
  std::atomic<bool> killed_{false};
  std::atomic<Command> victim_{};
  std::thread thread_;
};

struct Life {
  std::size_t kill_at = 0;  // 0: nothing is killed
  Moment moment = Moment::before;
  OnDisconnect policy = OnDisconnect::reconnect;
  std::string doorbells = "trap";
};

struct Lived {
  GuestRun run;
  std::size_t messages = 0;
  std::size_t of_attach = 0;
  bool killed = false;
  Command victim{};
  Clock::duration took{};
};

void live(const Life& life, Lived& lived) {
  const protocol_test::Steady steady;
  Disk disk({.doorbells = life.doorbells});
  Killer killer(disk, life.kill_at, life.moment);
  auto config = micro::guest_config("nvme_life");
  vmm::DeviceConfig device;
  device.name = "disk";
  device.socket = disk / "machine.sock";
  device.on_disconnect = life.policy;
  config.devices.push_back(device);
  const auto began = Clock::now();
  micro::run_guest(config, lived.run, [&](vmm::Machine&, vmm::EventLoop&, MemoryConsole&) {
    lived.of_attach = killer.messages();
  });
  lived.took = Clock::now() - began;
  lived.messages = killer.messages();
  killer.end();
  lived.killed = killer.killed();
  lived.victim = killer.victim();
}

// What may have become of the machine; empty: something that may.
std::string judge(const Life& life, const Lived& lived) {
  const auto status = lived.run.reason.status;
  const std::string& console = lived.run.console;
  const bool passed = status == ExitStatus::powered_off && console.ends_with("PASSED\n");
  if (!lived.killed) return passed ? "" : "not killed, and not passed";
  if (lived.of_attach == 0) {
    return status == ExitStatus::device_attach &&
                   lived.run.reason.message.find("disk") != std::string::npos
               ? ""
               : "lost while it attached: status 7 and its name are wanted";
  }
  switch (life.policy) {
    case OnDisconnect::stop:
      // The guest may have ended before anybody asked the device again.
      return status == ExitStatus::device_lost || passed ? "" : "status 8 is wanted";
    case OnDisconnect::detach:
      return status == ExitStatus::powered_off && (console.ends_with("gone\n") || passed)
                 ? ""
                 : "the guest should see that it is gone, and go on";
    case OnDisconnect::reconnect:
      return passed ? "" : "the guest should see nothing";
  }
  return "no such policy";
}

}  // namespace

TEST_CASE(
    "C93 a server killed before and after each message of start-up, run, reboot and shutdown: the "
    "machine ends as its policy says, or goes on") {
  const bool full = std::getenv("OUTBOARD_FULL") != nullptr;
  std::size_t lives = 0;
  Clock::duration longest{};
  for (const char* doorbells : {"trap", "shadow"}) {
    Lived whole;
    live({.kill_at = 0, .doorbells = doorbells}, whole);
    REQUIRE_MESSAGE(whole.run.console.ends_with("PASSED\n"), whole.run.console);
    REQUIRE(whole.of_attach > 10);
    REQUIRE(whole.messages > whole.of_attach + 40);
    std::size_t killed = 0;
    std::size_t wanted = 0;
    const std::size_t stride = full ? 1 : std::max<std::size_t>(whole.messages / 14, 1);
    for (std::size_t k = 1; k <= whole.messages; k += stride) {
      for (const auto moment : {Moment::before, Moment::after}) {
        for (const auto policy :
             {OnDisconnect::stop, OnDisconnect::detach, OnDisconnect::reconnect}) {
          // Attaching knows no policy.
          if (k <= whole.of_attach && policy != OnDisconnect::reconnect) continue;
          Life life{k, moment, policy, doorbells};
          Lived lived;
          live(life, lived);
          ++lives;
          ++wanted;
          killed += lived.killed ? 1 : 0;
          longest = std::max(longest, lived.took);
          const std::string wrong = judge(life, lived);
          CHECK_MESSAGE(
              wrong.empty(),
              fmt::format("{}: message {} of {} ({}), {}, doorbells {}, policy {}: "
                          "ended with {} '{}' after '{}'; {}",
                          wrong, k, whole.messages, wire::name_of(lived.victim),
                          moment == Moment::before ? "before" : "after", doorbells,
                          static_cast<int>(policy), lived.run.reason.exit_code(),
                          lived.run.reason.message, lived.run.console, lived.run.statistics));
          // Nothing waits for more than a deadline of 5 s.
          CHECK(lived.took < 30s);
        }
      }
    }
    // A life has about as many messages each time: only the last few may not come to be.
    CHECK(killed + 6 >= wanted);
  }
  MESSAGE(lives << " lives, the longest "
                << std::chrono::duration_cast<std::chrono::milliseconds>(longest).count() << " ms");
}
