// Requests that are in flight together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "vfio_user/connection.h"
#include "vfio_user/pending.h"
#include "vfio_user/result.h"

namespace outboard::vfio_user {

// Sends requests without waiting for their replies, at most `window` at a time (one in
// single-flight mode), and then collects the results in order. For one thread.
class Batch final {
 public:
  // Enough for the windows and queries of any machine; a bound on the descriptors that are on their
  // way.
  static constexpr std::size_t kWindow = 128;

  explicit Batch(Connection& connection, std::size_t window = kWindow)
      : connection_(connection), window_(window) {}

  // What the request points to is used only during the call.
  void add(const Connection::Request& request);
  // One result a request, in the order of add().
  [[nodiscard]] std::vector<Result<Reply>> finish();
  // Dependent round trips so far: how often everything sent had to be waited for.
  [[nodiscard]] std::uint32_t rounds() const { return rounds_; }

 private:
  void collect();

  Connection& connection_;
  const std::size_t window_;
  std::deque<PendingCall> calls_;   // those sent and not collected
  std::vector<std::size_t> slots_;  // their places in results_
  std::vector<Result<Reply>> results_;
  std::uint32_t rounds_ = 0;
};

}  // namespace outboard::vfio_user
