// File descriptors watched on the VMM's main thread. Declared here, implemented by the VMM (epoll).
#pragma once

#include <cstdint>
#include <functional>

namespace outboard::devices {

// Names one watch, from watch() until unwatch().
enum class WatchId : std::uint64_t {};

// Every member may be called from any thread. Callbacks run on the loop's thread, one at a time,
// and must not wait for a server or for a vCPU.
class EventLoop {
 public:
  virtual ~EventLoop() = default;

  // Level-triggered; epoll_events as in epoll_ctl(2). The callback gets the events that are ready.
  virtual WatchId watch(int fd, std::uint32_t epoll_events,
                        std::function<void(std::uint32_t)> callback) = 0;
  // When called from another thread: the callback neither runs nor will run once this has returned.
  // From a callback: it will not be called again. The caller closes the fd after this.
  virtual void unwatch(WatchId id) = 0;
  // Runs the function once on the loop's thread, soon.
  virtual void post(std::function<void()> function) = 0;
};

}  // namespace outboard::devices
