#include "tools/bench/access_orders.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <ctime>

#include <fmt/core.h>
#include <x86intrin.h>

namespace outboard::bench {

void put_order(const Order& order, Shared& shared) {
  shared.operation = order.operation;
  shared.samples = order.samples;
  shared.inner = order.inner;
  shared.gap = order.gap;
  shared.slot = order.slot;
  shared.flags = order.flags;
  shared.depth = order.depth;
  shared.failed = 0;
}

std::string failure_of(const Shared& shared) {
  if (shared.failed == 0) return {};
  const std::string reason(shared.reason, ::strnlen(shared.reason, sizeof shared.reason));
  return fmt::format("{} {:#x}", reason, shared.detail);
}

std::vector<double> ticks_of(const Order& order, std::span<const std::byte> memory) {
  const std::uint32_t count = std::min<std::uint32_t>(order.samples, kMaxSamples);
  std::vector<double> result(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    std::uint32_t ticks = 0;
    std::memcpy(&ticks, memory.data() + kTicksOffset + std::size_t{4} * i, sizeof ticks);
    result[i] = ticks;
  }
  return result;
}

void TickLength::add(std::uint64_t tick, std::uint64_t ns) {
  if (!begun_) {
    begun_ = true;
    first_tick_ = tick;
    first_ns_ = ns;
  }
  last_tick_ = tick;
  last_ns_ = ns;
}

double TickLength::ns() const {
  if (last_tick_ <= first_tick_) return 0;
  return static_cast<double>(last_ns_ - first_ns_) / static_cast<double>(last_tick_ - first_tick_);
}

std::uint64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

double host_ticks_in_a_microsecond() {
  const std::uint64_t begin = now_ns();
  const std::uint64_t ticks = __rdtsc();
  while (now_ns() - begin < 2'000'000) {
  }
  const double passed = static_cast<double>(now_ns() - begin) / 1000;
  return static_cast<double>(__rdtsc() - ticks) / passed;
}

}  // namespace outboard::bench
