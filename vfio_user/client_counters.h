// What went over a connection.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "vfio_user/wire.h"

namespace outboard::vfio_user {

// A snapshot: the figures of one moment need not fit each other exactly.
struct ClientCounters {
  // Requests by command number. A posted write is in `posted` alone; a REGION_WRITE_MULTI is here.
  std::array<std::uint64_t, wire::kCommandLimit> sent{};
  // Requests of the server by command number, of both sockets; those of no known number in [0].
  std::array<std::uint64_t, wire::kCommandLimit> received{};
  std::uint64_t bytes_sent = 0;      // main socket
  std::uint64_t bytes_received = 0;  // main socket
  std::uint64_t round_trips = 0;     // replies waited for and received
  std::uint64_t posted = 0;  // writes without a reply, those inside REGION_WRITE_MULTI included
  std::uint64_t timeouts = 0;
  std::uint64_t late_replies = 0;  // drained: for a request that had given up or wanted none
  std::uint64_t errors = 0;        // error replies of the server
};

// The same while it is counted, from any thread.
struct AtomicCounters {
  using Counter = std::atomic<std::uint64_t>;

  std::array<Counter, wire::kCommandLimit> sent{};
  std::array<Counter, wire::kCommandLimit> received{};
  Counter bytes_received{0};
  Counter round_trips{0};
  Counter posted{0};
  Counter timeouts{0};
  Counter late_replies{0};
  Counter errors{0};

  static void count(Counter& counter, std::uint64_t by = 1) {
    counter.fetch_add(by, std::memory_order_relaxed);
  }
  static void count(std::array<Counter, wire::kCommandLimit>& counters, std::uint16_t command) {
    count(counters[command < wire::kCommandLimit ? command : 0]);
  }
};

}  // namespace outboard::vfio_user
