#pragma once

// Orders to the bench's guest, its answers, and its clock. One thread.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tools/bench/access_memory.h"
#include "tools/bench/guest/protocol.h"

namespace outboard::bench {

// `samples` times `inner` operations; see guest/protocol.h.
struct Order {
  Operation operation = kMemoryStore;
  std::uint32_t samples = 1;  // at most kMaxSamples
  std::uint32_t inner = 1;
  std::uint64_t gap = 0;  // ticks between samples
  std::uint32_t slot = 0;
  std::uint32_t flags = 0;
  std::uint32_t depth = 1;
};

// Puts it where the guest will look. The guest must be waiting.
void put_order(const Order& order, Shared& shared);

// What the guest says went wrong with it; empty: nothing.
[[nodiscard]] std::string failure_of(const Shared& shared);

// What the samples took, in ticks of the guest's time stamp counter. `memory` is the guest's shared
// pages.
[[nodiscard]] std::vector<double> ticks_of(const Order& order, std::span<const std::byte> memory);

// How long a tick of a guest is, from moments at which both clocks were read.
class TickLength {
 public:
  // In order of time; `tick` and `ns` (CLOCK_MONOTONIC) of the same moment, within microseconds.
  void add(std::uint64_t tick, std::uint64_t ns);
  // Nanoseconds; between the first and the last moment, 0 before there are two.
  [[nodiscard]] double ns() const;

 private:
  bool begun_ = false;
  std::uint64_t first_tick_ = 0, first_ns_ = 0, last_tick_ = 0, last_ns_ = 0;
};

// CLOCK_MONOTONIC, ns.
[[nodiscard]] std::uint64_t now_ns();

// The host's ticks in a microsecond, to some percent: for gaps, not for figures.
[[nodiscard]] double host_ticks_in_a_microsecond();

}  // namespace outboard::bench
