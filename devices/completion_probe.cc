#include "devices/completion_probe.h"

#include <sys/epoll.h>
#include <unistd.h>

namespace outboard::devices {

Result<void> CompletionProbe::connect_vector(std::uint32_t vector, int eventfd, std::uint32_t gsi) {
  if (vector != 0) marks_.stamp(DeviceMark::io_vector);
  const bool seen = vector == 0 ? marks_.at(DeviceMark::first_interrupt).has_value()
                                : marks_.at(DeviceMark::first_io_completion).has_value();
  if (seen) return router_.connect(eventfd, gsi);
  const std::lock_guard lock(mutex_);  // the callback waits until the entry is there
  const WatchId watch =
      loop_.watch(eventfd, EPOLLIN, [this, eventfd](std::uint32_t) { signalled(eventfd); });
  watched_[eventfd] = {vector, gsi, watch};
  return {};
}

void CompletionProbe::disconnect(int eventfd, std::uint32_t gsi) {
  std::unique_lock lock(mutex_);
  const auto entry = watched_.find(eventfd);
  if (entry == watched_.end()) {
    lock.unlock();
    return router_.disconnect(eventfd, gsi);
  }
  const WatchId watch = entry->second.watch;
  watched_.erase(entry);
  lock.unlock();
  loop_.unwatch(watch);  // waits for a callback, which finds nothing
}

void CompletionProbe::signalled(int eventfd) {
  const std::lock_guard lock(mutex_);
  const auto entry = watched_.find(eventfd);
  if (entry == watched_.end()) return;  // masked in the meantime
  const bool io = entry->second.vector != 0;
  marks_.stamp(DeviceMark::first_interrupt);
  if (io) marks_.stamp(DeviceMark::first_io_completion);
  hand_over(entry);
  if (!io) return;
  for (auto next = watched_.begin(); next != watched_.end();) {
    next = next->second.vector == 0 ? std::next(next) : hand_over(next);
  }
}

// A signal that comes after the read stays in the eventfd, and connecting it delivers it.
CompletionProbe::Map::iterator CompletionProbe::hand_over(Map::iterator entry) {
  const int eventfd = entry->first;
  loop_.unwatch(entry->second.watch);
  std::uint64_t signals = 0;
  const bool pending = ::read(eventfd, &signals, sizeof signals) == sizeof signals;
  // A refusal leaves the vector dead, as it would have without a probe; the router logs why.
  static_cast<void>(router_.connect(eventfd, entry->second.gsi));
  const std::uint64_t one = 1;
  if (pending) static_cast<void>(!::write(eventfd, &one, sizeof one));
  return watched_.erase(entry);
}

}  // namespace outboard::devices
