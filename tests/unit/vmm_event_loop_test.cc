// The event loop: file descriptors, signals, timers and posted functions on one thread.
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <thread>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/event_loop.h"

using outboard::devices::WatchId;
using outboard::vfio_user::UniqueFd;
using outboard::vmm::EventLoop;
using namespace std::chrono_literals;

namespace {

std::unique_ptr<EventLoop> make_loop() {
  auto loop = EventLoop::create();
  REQUIRE(loop);
  return std::move(*loop);
}

UniqueFd make_eventfd() {
  return UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

void signal_fd(const UniqueFd& fd) {
  const std::uint64_t one = 1;
  REQUIRE(::write(fd.get(), &one, sizeof(one)) == sizeof(one));
}

}  // namespace

TEST_CASE("a watched descriptor that is ready calls back, level-triggered, until unwatched") {
  auto loop = make_loop();
  const UniqueFd fd = make_eventfd();
  int calls = 0;
  const WatchId id = loop->watch(fd.get(), EPOLLIN, [&](std::uint32_t events) {
    CHECK((events & EPOLLIN) != 0);
    ++calls;
  });
  loop->run_once(0ms);
  CHECK(calls == 0);
  signal_fd(fd);
  loop->run_once(1000ms);
  loop->run_once(1000ms);
  CHECK(calls == 2);
  loop->unwatch(id);
  loop->run_once(0ms);
  CHECK(calls == 2);
}

TEST_CASE("posted functions run once, in order, on the loop's thread, from whichever thread") {
  auto loop = make_loop();
  std::vector<int> order;
  const auto thread = std::this_thread::get_id();
  std::jthread poster([&] {
    for (int i = 0; i < 3; ++i) {
      loop->post([&, i] {
        CHECK(std::this_thread::get_id() == thread);
        order.push_back(i);
      });
    }
  });
  while (order.size() < 3) loop->run_once(1000ms);
  CHECK(order == std::vector<int>{0, 1, 2});
  loop->run_once(0ms);
  CHECK(order.size() == 3);
}

TEST_CASE("a function posted by a posted function runs in a later round") {
  auto loop = make_loop();
  int runs = 0;
  loop->post([&] {
    ++runs;
    loop->post([&] { ++runs; });
  });
  loop->run_once(1000ms);
  CHECK(runs == 1);
  loop->run_once(1000ms);
  CHECK(runs == 2);
}

TEST_CASE("a callback may unwatch itself and others; those do not run any more") {
  auto loop = make_loop();
  const UniqueFd first = make_eventfd();
  const UniqueFd second = make_eventfd();
  signal_fd(first);
  signal_fd(second);
  int calls = 0;
  WatchId one{};
  WatchId two{};
  const auto both = [&](std::uint32_t) {
    ++calls;
    loop->unwatch(one);
    loop->unwatch(two);
  };
  one = loop->watch(first.get(), EPOLLIN, both);
  two = loop->watch(second.get(), EPOLLIN, both);
  loop->run_once(1000ms);
  loop->run_once(0ms);
  CHECK(calls == 1);
}

TEST_CASE("after unwatch from another thread the callback neither runs nor will run") {
  auto loop = make_loop();
  for (int round = 0; round < 200; ++round) {
    const UniqueFd fd = make_eventfd();
    std::atomic<bool> gone{false};
    std::atomic<bool> late{false};
    std::atomic<bool> seen{false};
    const WatchId id = loop->watch(fd.get(), EPOLLIN, [&](std::uint32_t) {
      if (gone) late = true;
      seen = true;
      std::this_thread::yield();
      if (gone) late = true;
    });
    signal_fd(fd);
    std::jthread other([&] {
      while (!seen) std::this_thread::yield();
      loop->unwatch(id);
      gone = true;
    });
    while (!gone) loop->run_once(1ms);
    loop->run_once(0ms);
    CHECK_FALSE(late);
  }
}

TEST_CASE("the same descriptor may be watched twice") {
  auto loop = make_loop();
  const UniqueFd fd = make_eventfd();
  int first = 0;
  int second = 0;
  const WatchId one = loop->watch(fd.get(), EPOLLIN, [&](std::uint32_t) { ++first; });
  const WatchId two = loop->watch(fd.get(), EPOLLIN, [&](std::uint32_t) { ++second; });
  signal_fd(fd);
  loop->run_once(1000ms);
  loop->unwatch(one);
  loop->run_once(1000ms);
  CHECK(first == 1);
  CHECK(second >= 1);
  loop->unwatch(two);
}

TEST_CASE("a regular file counts as always ready: standard input may come from a file") {
  auto loop = make_loop();
  char path[] = "/tmp/outboard-loop-XXXXXX";
  const UniqueFd fd(::mkstemp(path));
  REQUIRE(fd);
  ::unlink(path);
  int calls = 0;
  const WatchId id = loop->watch(fd.get(), EPOLLIN, [&](std::uint32_t) { ++calls; });
  loop->run_once();  // would wait for ever otherwise
  CHECK(calls == 1);
  loop->unwatch(id);
  loop->run_once(0ms);
  CHECK(calls == 1);
}

TEST_CASE("a timer fires once, not before its time; unwatch cancels it") {
  auto loop = make_loop();
  int fired = 0;
  const auto start = std::chrono::steady_clock::now();
  REQUIRE(loop->after(20ms, [&] { ++fired; }));
  while (fired == 0) loop->run_once(1000ms);
  CHECK(std::chrono::steady_clock::now() - start >= 20ms);
  loop->run_once(0ms);
  CHECK(fired == 1);

  auto cancelled = loop->after(1ms, [&] { ++fired; });
  REQUIRE(cancelled);
  loop->unwatch(*cancelled);
  auto later = loop->after(30ms, [&] { fired += 10; });
  REQUIRE(later);
  while (fired < 10) loop->run_once(1000ms);
  CHECK(fired == 11);
}

TEST_CASE("signals come through the loop instead of killing the process") {
  auto loop = make_loop();
  int got = 0;
  auto id = loop->watch_signals({SIGUSR1, SIGUSR2}, [&](int signal) { got = signal; });
  REQUIRE(id);
  ::kill(::getpid(), SIGUSR2);
  while (got == 0) loop->run_once(1000ms);
  CHECK(got == SIGUSR2);
  loop->unwatch(*id);
}
