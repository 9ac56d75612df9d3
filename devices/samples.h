// Times of which the last thousand are kept, for their percentiles.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "devices/link_state.h"

namespace outboard::devices {

// Not thread-safe; the owner has a lock.
class Samples final {
 public:
  static constexpr std::size_t kKept = 1024;

  void add(std::chrono::steady_clock::duration time) {
    const auto rounded = std::chrono::ceil<std::chrono::microseconds>(time);
    if (kept_.size() < kKept) {
      kept_.push_back(rounded);
    } else {
      kept_[count_ % kKept] = rounded;
    }
    ++count_;
    worst_ = std::max(worst_, rounded);
  }

  [[nodiscard]] Spread spread() const {
    Spread out{.count = count_, .p50 = {}, .p99 = {}, .worst = worst_};
    if (kept_.empty()) return out;
    auto sorted = kept_;
    std::ranges::sort(sorted);
    out.p50 = sorted[(sorted.size() - 1) / 2];
    out.p99 = sorted[(sorted.size() - 1) * 99 / 100];
    return out;
  }

 private:
  std::vector<std::chrono::microseconds> kept_;
  std::uint64_t count_ = 0;
  std::chrono::microseconds worst_{};
};

}  // namespace outboard::devices
