// What a function's trapped accesses came to.
#pragma once

#include <atomic>
#include <cstdint>

namespace outboard::devices {

class AccessMarks;

// Written by any vCPU, read by any thread; each figure on its own.
struct AccessCounters {
  std::atomic<std::uint64_t> bar_reads{0};
  std::atomic<std::uint64_t> bar_writes{0};
  std::atomic<std::uint64_t> access_errors{0};
  std::atomic<std::uint64_t> config_forwards{0};
  std::atomic<std::uint64_t> config_errors{0};

  AccessMarks* marks = nullptr;  // set before the guest runs; may be none
};

inline void count(std::atomic<std::uint64_t>& figure) {
  figure.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace outboard::devices
