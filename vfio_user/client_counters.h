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
  // Whole messages by command number, requests and replies alike, of both sockets.
  std::array<std::uint64_t, wire::kCommandLimit> bytes_out{};
  std::array<std::uint64_t, wire::kCommandLimit> bytes_in{};
  std::uint64_t bytes_sent = 0;      // main socket
  std::uint64_t bytes_received = 0;  // main socket
  std::uint64_t round_trips = 0;     // replies waited for and received
  // Requests sent while none was in flight. For a thread that is alone with the client: how often
  // it had to wait before it could go on, requests sent together counted once.
  std::uint64_t dependent_round_trips = 0;
  std::uint64_t posted = 0;  // writes without a reply, those inside REGION_WRITE_MULTI included
  std::uint64_t posted_alone = 0;  // of these, the ones that were a REGION_WRITE
  std::uint64_t timeouts = 0;
  std::uint64_t late_replies = 0;  // drained: for a request that had given up or wanted none
  std::uint64_t errors = 0;        // error replies of the server

  // Of several connections to the same device.
  ClientCounters& operator+=(const ClientCounters& other) {
    const auto add = [](auto& sum, const auto& more) {
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += more[i];
    };
    add(sent, other.sent);
    add(received, other.received);
    add(bytes_out, other.bytes_out);
    add(bytes_in, other.bytes_in);
    bytes_sent += other.bytes_sent;
    bytes_received += other.bytes_received;
    round_trips += other.round_trips;
    dependent_round_trips += other.dependent_round_trips;
    posted += other.posted;
    posted_alone += other.posted_alone;
    timeouts += other.timeouts;
    late_replies += other.late_replies;
    errors += other.errors;
    return *this;
  }
};

// The same while it is counted, from any thread.
struct AtomicCounters {
  using Counter = std::atomic<std::uint64_t>;
  using ByCommand = std::array<Counter, wire::kCommandLimit>;

  ByCommand sent{};
  ByCommand received{};
  ByCommand bytes_out{};
  ByCommand bytes_in{};
  Counter round_trips{0};
  Counter dependent_round_trips{0};
  Counter posted{0};
  Counter timeouts{0};
  Counter late_replies{0};
  Counter errors{0};

  static void count(Counter& counter, std::uint64_t by = 1) {
    counter.fetch_add(by, std::memory_order_relaxed);
  }
  static void count(ByCommand& counters, std::uint16_t command, std::uint64_t by = 1) {
    count(counters[command < wire::kCommandLimit ? command : 0], by);
  }
  // Where one thread at a time counts: no locked instruction.
  static void count_alone(Counter& counter, std::uint64_t by = 1) {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }
  // Adds the figures by command.
  void add_to(ClientCounters& sum) const {
    for (std::size_t i = 0; i < wire::kCommandLimit; ++i) {
      sum.sent[i] += sent[i].load(std::memory_order_relaxed);
      sum.received[i] += received[i].load(std::memory_order_relaxed);
      sum.bytes_out[i] += bytes_out[i].load(std::memory_order_relaxed);
      sum.bytes_in[i] += bytes_in[i].load(std::memory_order_relaxed);
    }
  }
};

}  // namespace outboard::vfio_user
