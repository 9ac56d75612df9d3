// The program without its command line: the device, its socket and the event loop, in a thread of
// the test.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

#include <doctest/doctest.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/nvme_guest.h"
#include "tools/nvme/published_socket.h"
#include "tools/nvme/service_loop.h"

namespace outboard::nvme::test {

inline std::string socket_path() {
  static std::atomic<int> number = 0;
  const char* base = std::getenv("TMPDIR");
  return std::string(base != nullptr ? base : "/tmp") + "/nvme-device-test." +
         std::to_string(getpid()) + "." + std::to_string(number++);
}

class Program {
 public:
  explicit Program(DoorbellMode mode, const LoopOptions& options = {})
      : path(socket_path()), stop_(eventfd(0, EFD_CLOEXEC)) {
    thread_ = std::thread([this, mode, options] {
      thread_id_ = gettid();
      std::vector<Namespace> all = one(memory_namespace(1 << 20));
      VfioDevice device({}, std::move(all), std::move(*Doorbells::create()), mode);
      auto socket = PublishedSocket::create(path);
      if (!socket) return;
      auto server = vfio_user::Server::listen(socket->take_fd(), device);
      if (!server) return;
      device.serve_through(server->get());
      eventfd_write(ready_.get(), 1);
      failed = !run_service(**server, device, stop_.get(), options);
      counters = device.controller().counters();
    });
    eventfd_t value;
    REQUIRE(eventfd_read(ready_.get(), &value) == 0);
  }
  ~Program() { end(); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void end() {
    if (!thread_.joinable()) return;
    eventfd_write(stop_.get(), 1);
    thread_.join();
  }

  // Of the program's thread, while it runs: what it has used so far, and how often it has gone to
  // sleep.
  std::chrono::nanoseconds processor_time() {
    clockid_t clock{};
    timespec time{};
    REQUIRE(pthread_getcpuclockid(thread_.native_handle(), &clock) == 0);
    REQUIRE(clock_gettime(clock, &time) == 0);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  }
  long sleeps() const {
    const std::string key = "voluntary_ctxt_switches:";
    std::ifstream status("/proc/self/task/" + std::to_string(thread_id_) + "/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with(key)) return std::stol(line.substr(key.size()));
    }
    return -1;
  }
  // Until it has nothing left to do: it waits, and goes on waiting.
  void wait_until_asleep() {
    for (int quiet = 0; quiet < 20;) {
      const auto before = processor_time();
      const timespec pause{0, 5'000'000};
      nanosleep(&pause, nullptr);
      quiet = processor_time() == before ? quiet + 1 : 0;
    }
  }

  const std::string path;
  bool failed = false;
  Counters counters;  // after end()

 private:
  vfio_user::UniqueFd stop_;
  vfio_user::UniqueFd ready_{eventfd(0, EFD_CLOEXEC)};
  pid_t thread_id_ = 0;
  std::thread thread_;
};

}  // namespace outboard::nvme::test
