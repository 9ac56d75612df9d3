#pragma once

// Events of many threads in one place that is set aside beforehand: no lock, no allocation.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <type_traits>

namespace outboard::vmm {

// Keeps the first `capacity` events and counts the rest. Memory is touched as events come.
template <class Event>
class EventLog final {
  static_assert(std::is_trivially_copyable_v<Event> && std::is_trivially_destructible_v<Event>);

 public:
  explicit EventLog(std::size_t capacity)
      : capacity_(capacity),
        storage_(std::make_unique_for_overwrite<std::byte[]>(capacity * sizeof(Event))) {
    static_assert(alignof(Event) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__);
  }

  // Any thread.
  void add(const Event& event) {
    const std::size_t place = next_.fetch_add(1, std::memory_order_relaxed);
    if (place < capacity_) new (storage_.get() + place * sizeof(Event)) Event(event);
  }

  // In no particular order. Only once every thread that adds has ended or been joined.
  [[nodiscard]] std::span<const Event> events() const {
    const auto* const first = std::launder(reinterpret_cast<const Event*>(storage_.get()));
    return {first, std::min(next_.load(std::memory_order_relaxed), capacity_)};
  }
  // Those that had no room.
  [[nodiscard]] std::uint64_t dropped() const {
    const std::size_t added = next_.load(std::memory_order_relaxed);
    return added > capacity_ ? added - capacity_ : 0;
  }

 private:
  const std::size_t capacity_;
  const std::unique_ptr<std::byte[]> storage_;
  std::atomic<std::size_t> next_{0};  // any thread
};

}  // namespace outboard::vmm
