// The one-shot probe on the real event loop, with a server that signals and a guest that masks
// while it is handed over.
#include <array>
#include <atomic>
#include <thread>

#include <doctest/doctest.h>
#include <sys/eventfd.h>

#include "devices/completion_probe.h"
#include "tests/unit/devices_fakes.h"
#include "vfio_user/unique_fd.h"
#include "vmm/event_loop.h"

using namespace outboard;
using namespace outboard::devices;

namespace {

constexpr std::uint32_t kVectors = 3;
constexpr auto kPatience = std::chrono::seconds(20);

struct Machine {
  Machine() : loop(*vmm::EventLoop::create()) {
    for (std::uint32_t i = 0; i < kVectors; ++i) {
      fds[i].reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      const MsiRouter::Route route{*probe.allocate_gsi(), {0xfee00000, i}};
      REQUIRE(probe.set_routes({&route, 1}));
    }
  }
  void unmask(std::uint32_t vector) {
    CHECK(probe.connect_vector(vector, fds[vector].get(), 24 + vector));
  }
  void mask(std::uint32_t vector) { probe.disconnect(fds[vector].get(), 24 + vector); }

  std::unique_ptr<vmm::EventLoop> loop;
  FakeMsiRouter router;
  DeviceMarks marks;
  CompletionProbe probe{router, *loop, marks};
  std::array<vfio_user::UniqueFd, kVectors> fds;
};

// Runs on the main thread until the others are through.
void drive(vmm::EventLoop& loop, const std::atomic<int>& running) {
  const auto deadline = std::chrono::steady_clock::now() + 2 * kPatience;
  while (running.load() != 0 && std::chrono::steady_clock::now() < deadline) {
    loop.run_once(std::chrono::milliseconds(1));
  }
}

}  // namespace

TEST_CASE(
    "probe: no signal is lost while a vector is handed over, masked and unmasked: an interrupt "
    "comes after the last one of each vector") {
  for (int round = 0; round < 60; ++round) {
    CAPTURE(round);
    Machine machine;
    std::atomic<int> running{3};
    // As a device does: a completion in memory, then the signal. As a driver does: an interrupt,
    // then all completions that are in memory. A lost signal leaves completions there.
    const int wanted = 1 + round % 40;
    std::array<std::atomic<int>, kVectors> completions{};
    std::array<int, kVectors> handled{};  // of the irqchip's thread, as the next
    std::array<int, kVectors> interrupts{};
    std::atomic<bool> over{false};
    for (std::uint32_t i = 0; i < kVectors; ++i) machine.unmask(i);

    std::thread server([&] {
      for (int n = 1; n <= wanted; ++n) {
        for (std::uint32_t i = 0; i < kVectors; ++i) {
          completions[i].store(n);
          ::eventfd_write(machine.fds[i].get(), 1);
        }
        if (n % 4 == round % 4) std::this_thread::yield();
      }
      --running;
    });
    std::thread vcpu([&] {  // masks and unmasks; in the end all are unmasked
      for (int n = 0; n < 10; ++n) {
        const auto vector = static_cast<std::uint32_t>((n + round) % kVectors);
        machine.mask(vector);
        if ((n + round) % 3 == 0) std::this_thread::yield();
        machine.unmask(vector);
      }
      over.store(true);
      --running;
    });
    std::thread irqchip([&] {
      const auto deadline = std::chrono::steady_clock::now() + kPatience;
      for (;;) {
        for (const MsiMessage& message : machine.router.deliver()) {
          ++interrupts[message.data];
          handled[message.data] = completions[message.data].load();
        }
        bool all = over.load();
        for (const int last : handled) all = all && last == wanted;
        if (all || std::chrono::steady_clock::now() > deadline) break;
        std::this_thread::yield();
      }
      --running;
    });
    drive(*machine.loop, running);
    server.join();
    vcpu.join();
    irqchip.join();
    for (std::uint32_t i = 0; i < kVectors; ++i) {
      CAPTURE(i);
      REQUIRE(handled[i] == wanted);
      CHECK(interrupts[i] <= wanted);  // none was made up
    }
    CHECK(machine.marks.at(DeviceMark::first_io_completion).has_value());
    CHECK(machine.router.connected() == kVectors);
  }
}
