#pragma once

// A sample of one measured quantity: durations in nanoseconds, counts or bytes. A value type of
// one thread.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <optional>
#include <span>
#include <vector>

namespace outboard::bench {

class Sample {
 public:
  Sample() = default;
  Sample(std::initializer_list<double> values) : values_(values) {}

  void add(double value) { values_.push_back(value); }

  [[nodiscard]] std::size_t size() const { return values_.size(); }
  [[nodiscard]] bool empty() const { return values_.empty(); }
  // In the order of add().
  [[nodiscard]] std::span<const double> values() const { return values_; }

  // `p` in 0..100, linear between the two nearest ranks (rank p/100 * (size - 1)): of 1, 2, 3, 4
  // the 50th is 2.5 and the 100th is 4. 0 for an empty sample.
  [[nodiscard]] double percentile(double p) const {
    if (values_.empty()) return 0;
    std::vector<double> sorted = values_;
    std::sort(sorted.begin(), sorted.end());
    const double last = static_cast<double>(sorted.size() - 1);
    const double rank = std::clamp(p / 100.0, 0.0, 1.0) * last;
    const double below = std::floor(rank);
    const auto low = static_cast<std::size_t>(below);
    const std::size_t high = std::min(low + 1, sorted.size() - 1);
    return sorted[low] + (sorted[high] - sorted[low]) * (rank - below);
  }

  [[nodiscard]] double min() const { return percentile(0); }
  [[nodiscard]] double median() const { return percentile(50); }
  [[nodiscard]] double p90() const { return percentile(90); }
  [[nodiscard]] double p99() const { return percentile(99); }
  [[nodiscard]] double max() const { return percentile(100); }

  // The place in the order of add() of the value nearest to the median; none of an empty sample.
  [[nodiscard]] std::optional<std::size_t> median_index() const {
    if (values_.empty()) return std::nullopt;
    const double middle = median();
    const auto nearest = std::min_element(
        values_.begin(), values_.end(),
        [middle](double a, double b) { return std::abs(a - middle) < std::abs(b - middle); });
    return static_cast<std::size_t>(nearest - values_.begin());
  }

 private:
  std::vector<double> values_;
};

// ours[i] / theirs[i], pair by pair: what two programs measured in turn on a noisy machine have
// to say about each other. Pairs with no partner, or with a divisor that is not positive, are left
// out.
[[nodiscard]] inline Sample pair_ratios(const Sample& ours, const Sample& theirs) {
  Sample ratios;
  const std::size_t pairs = std::min(ours.size(), theirs.size());
  for (std::size_t i = 0; i < pairs; ++i) {
    if (theirs.values()[i] > 0) ratios.add(ours.values()[i] / theirs.values()[i]);
  }
  return ratios;
}

}  // namespace outboard::bench
