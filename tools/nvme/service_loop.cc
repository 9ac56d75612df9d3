#include "tools/nvme/service_loop.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include <poll.h>

namespace outboard::nvme {

using Clock = std::chrono::steady_clock;
using std::chrono::nanoseconds;

namespace {

// Between two looks at the file descriptors while busy, whichever comes first.
constexpr int kTurnsPerPoll = 16;
constexpr nanoseconds kTimePerPoll = std::chrono::milliseconds(1);

int wait_for(std::vector<pollfd>& fds, const nanoseconds* limit) {
  if (limit == nullptr) return ppoll(fds.data(), fds.size(), nullptr, nullptr);
  const timespec time{limit->count() / 1'000'000'000, limit->count() % 1'000'000'000};
  return ppoll(fds.data(), fds.size(), &time, nullptr);
}

}  // namespace

vfio_user::Result<void> run_service(vfio_user::Server& server, VfioDevice& device, int signal_fd,
                                    const LoopOptions& options) {
  Controller& controller = device.controller();
  std::vector<pollfd> fds = {{server.poll_fd(), POLLIN, 0}, {signal_fd, POLLIN, 0}};
  const std::size_t wake = fds.size();  // of the entry below, in the mode that has one
  if (device.wake_fd() >= 0) fds.push_back({device.wake_fd(), POLLIN, 0});
  for (const Namespace& ns : controller.namespaces()) {
    if (ns.backend->poll_fd() >= 0) fds.push_back({ns.backend->poll_fd(), POLLIN, 0});
  }

  auto last_busy = Clock::now();
  nanoseconds interval = options.first_interval;
  while (true) {
    bool busy = false;
    const auto begin = Clock::now();
    auto now = begin;
    for (int i = 0; i < kTurnsPerPoll && now - begin < kTimePerPoll && controller.turn(); ++i) {
      busy = true;
      now = Clock::now();
    }

    // Whoever did the read: unmasking the interrupt pin takes a turn of its own.
    if (options.first_read && controller.io_clock().take_news()) {
      options.first_read(controller.io_clock().times());
    }
    const bool polling = device.must_poll();
    if (busy) {
      last_busy = now;
      interval = options.first_interval;
    }
    nanoseconds limit{0};
    const bool spinning = busy || (device.worth_spinning() && now - last_busy < options.spin);
    if (!spinning) {
      limit = interval;
      interval = std::min(interval * 2, options.last_interval);
    }
    if (!spinning && !controller.may_sleep()) continue;
    const int ready = wait_for(fds, spinning || polling ? &limit : nullptr);
    if (ready < 0 && errno != EINTR) {
      return vfio_user::fail(vfio_user::Error::Kind::system, errno,
                             std::string("ppoll: ") + std::strerror(errno));
    }
    if (ready <= 0) continue;
    if (fds[1].revents != 0) {
      // A client that has left leaves nothing for a successor.
      if (fds[0].revents != 0) return server.process();
      return {};
    }
    if (device.wake_fd() >= 0 && fds[wake].revents != 0) device.take_wake();
    if (fds[0].revents != 0) {
      if (auto done = server.process(); !done) return done;
      last_busy = now;
      if (options.once && device.client_left()) return {};
    }
  }
}

}  // namespace outboard::nvme
