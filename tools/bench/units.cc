#include "tools/bench/units.h"

#include <cmath>

#include <fmt/core.h>

namespace outboard::bench {
namespace {

std::string three_digits(double value) {
  const double size = std::abs(value);
  return size >= 100  ? fmt::format("{:.0f}", value)
         : size >= 10 ? fmt::format("{:.1f}", value)
                      : fmt::format("{:.2f}", value);
}

}  // namespace

std::string duration_text(double nanoseconds) {
  const double size = std::abs(nanoseconds);
  if (size < 999.5) return fmt::format("{:.0f} ns", nanoseconds);
  if (size < 999.5e3) return three_digits(nanoseconds / 1e3) + " µs";
  if (size < 999.5e6) return three_digits(nanoseconds / 1e6) + " ms";
  return three_digits(nanoseconds / 1e9) + " s";
}

std::string size_text(double bytes) {
  if (bytes < 1048576.0) return fmt::format("{:.0f} KiB", bytes / 1024);
  return three_digits(bytes / 1048576.0) + " MiB";
}

std::string ratio_text(double ratio) {
  return ratio < 1 ? fmt::format("{:.3f}", ratio) : three_digits(ratio);
}

}  // namespace outboard::bench
