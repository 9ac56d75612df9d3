// Adaptive polling: whether a thread that waits for a reply looks at the socket again and again for
// a moment before it sleeps.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace outboard::vfio_user {

// A wake-up costs more than the reply of a server that is awake on a processor of its own; where
// there is no such processor, polling keeps the server from running. So each failure in a row
// doubles the number of waits that go without (at most kMaxSkipped), and a success forgets them:
// where it never helps it costs at most window / kMaxSkipped a wait. Not thread-safe.
class ReplyPoll {
 public:
  static constexpr std::uint32_t kMaxSkipped = 1024;

  // A window of 0 never polls.
  explicit ReplyPoll(std::chrono::microseconds window) : window_(window) {}

  [[nodiscard]] std::chrono::microseconds window() const { return window_; }

  // Called once a wait: whether to poll in this one. After true, report what came of it.
  [[nodiscard]] bool wanted() {
    if (window_.count() == 0) return false;
    if (left_to_skip_ == 0) return true;
    --left_to_skip_;
    return false;
  }

  void succeeded() { skip_ = 0; }
  void failed() {
    skip_ = std::min(std::max(1u, skip_ * 2), kMaxSkipped);
    left_to_skip_ = skip_;
  }

 private:
  std::chrono::microseconds window_;
  std::uint32_t skip_ = 0;
  std::uint32_t left_to_skip_ = 0;
};

}  // namespace outboard::vfio_user
