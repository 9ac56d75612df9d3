#pragma once

// The one clock of every figure: CLOCK_MONOTONIC, in nanoseconds. The VMM, the device server and
// this program read the same one.

#include <cstdint>

#include <time.h>

namespace outboard::bench {

[[nodiscard]] inline std::uint64_t monotonic_now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(time.tv_nsec);
}

}  // namespace outboard::bench
