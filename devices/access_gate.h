// Who is inside the current connection of a device: accesses enter and leave, and whoever changes
// the connection shuts them out and waits until the last one has left.
#pragma once

#include <atomic>
#include <cstdint>

namespace outboard::devices {

// Open at first. Any thread. Passing it is two additions to one word: no lock and no system call,
// except for the last one who leaves while somebody waits for that.
class AccessGate final {
 public:
  // False: it is closed, and the caller is not inside.
  [[nodiscard]] bool enter() {
    if ((word_.fetch_add(1, std::memory_order_acquire) & kClosed) == 0) return true;
    leave();
    return false;
  }
  void leave() {
    if (word_.fetch_sub(1, std::memory_order_release) == (kClosed | 1)) word_.notify_all();
  }
  [[nodiscard]] bool is_open() const {
    return (word_.load(std::memory_order_acquire) & kClosed) == 0;
  }

  void close() { word_.fetch_or(kClosed, std::memory_order_acq_rel); }
  // Returns when nobody is inside; the gate is closed.
  void wait_until_empty() const {
    for (std::uint32_t seen = word_.load(std::memory_order_acquire); seen != kClosed;
         seen = word_.load(std::memory_order_acquire)) {
      word_.wait(seen, std::memory_order_acquire);
    }
  }
  // What was written before is seen by whoever enters.
  void open() { word_.fetch_and(~kClosed, std::memory_order_release); }

 private:
  static constexpr std::uint32_t kClosed = std::uint32_t{1} << 31;
  std::atomic<std::uint32_t> word_{0};  // kClosed, and how many are inside
};

}  // namespace outboard::devices
