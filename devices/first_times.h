// When things happened for the first time: CLOCK_MONOTONIC, nanoseconds, one slot an event.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <optional>

namespace outboard::devices {

[[nodiscard]] inline std::uint64_t monotonic_now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(time.tv_nsec);
}

// Event is an enum class counted from 0, whose last enumerator is `count`. Stamped by any thread
// with no lock; an event that has its time already costs one load.
template <class Event>
class FirstTimes final {
 public:
  static constexpr std::size_t kCount = static_cast<std::size_t>(Event::count);

  void stamp(Event event) {
    if (slot(event).load(std::memory_order_relaxed) == 0) stamp_at(event, monotonic_now());
  }
  // A time of the caller's; 0 is no time.
  void stamp_at(Event event, std::uint64_t nanoseconds) {
    std::uint64_t unset = 0;
    slot(event).compare_exchange_strong(unset, nanoseconds);
  }
  [[nodiscard]] std::optional<std::uint64_t> at(Event event) const {
    const std::uint64_t time = times_[static_cast<std::size_t>(event)].load();
    if (time == 0) return std::nullopt;
    return time;
  }

 private:
  std::atomic<std::uint64_t>& slot(Event event) { return times_[static_cast<std::size_t>(event)]; }

  std::array<std::atomic<std::uint64_t>, kCount> times_{};  // any thread; 0 is "not yet"
};

}  // namespace outboard::devices
