#pragma once

// The event loop of the program: file descriptors, signals, timers and posted functions, all
// handled on the main thread (epoll). Owned by the command that runs the machine; it outlives the
// machine and everything that watches through it.
//
// watch(), unwatch() and post() may be called from any thread; everything else from the main
// thread.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "devices/event_loop.h"
#include "vfio_user/unique_fd.h"
#include "vmm/error.h"

namespace outboard::vmm {

class EventLoop final : public devices::EventLoop {
 public:
  // The calling thread becomes the loop's thread.
  [[nodiscard]] static Result<std::unique_ptr<EventLoop>> create();

  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;
  ~EventLoop() override;

  // A regular file, which epoll refuses, counts as always ready, as poll(2) has it. The same fd may
  // be watched more than once.
  devices::WatchId watch(int fd, std::uint32_t epoll_events,
                         std::function<void(std::uint32_t)> callback) override;
  void unwatch(devices::WatchId id) override;
  void post(std::function<void()> function) override;

  // Blocks `signals` in the calling thread (and so in threads it starts later) and delivers them
  // here instead, until unwatch(). unwatch() leaves them blocked.
  [[nodiscard]] Result<devices::WatchId> watch_signals(std::initializer_list<int> signals,
                                                       std::function<void(int)> callback);

  // Calls `function` once, `delay` from now; unwatch() cancels it.
  [[nodiscard]] Result<devices::WatchId> after(std::chrono::milliseconds delay,
                                               std::function<void()> function);

  // Waits until something happens, at most `timeout` (none: without end), and handles it.
  void run_once(std::optional<std::chrono::milliseconds> timeout = std::nullopt);

 private:
  struct Watch {
    int fd = -1;              // the caller's
    vfio_user::UniqueFd own;  // a duplicate, a signalfd or a timerfd of ours, or empty
    std::uint32_t events = 0;
    bool always_ready = false;  // a regular file
    bool once = false;          // a timer
    std::function<void(std::uint32_t)> callback;
  };

  EventLoop(vfio_user::UniqueFd epoll, vfio_user::UniqueFd wake);
  devices::WatchId add(Watch watch);
  void dispatch(std::uint64_t id, std::uint32_t events);
  void run_posted();

  const vfio_user::UniqueFd epoll_;
  const vfio_user::UniqueFd wake_;  // an eventfd: something was posted or changed
  const std::thread::id thread_;

  std::mutex mutex_;                  // a leaf; never held while a callback runs
  std::condition_variable finished_;  // a callback has returned
  std::map<std::uint64_t, std::shared_ptr<Watch>> watches_;  // under mutex_
  std::uint64_t next_id_ = 1;                                // under mutex_
  std::uint64_t running_ = 0;                  // under mutex_: the watch whose callback runs, or 0
  std::size_t always_ready_ = 0;               // under mutex_: how many watches are
  std::vector<std::function<void()>> posted_;  // under mutex_
};

}  // namespace outboard::vmm
