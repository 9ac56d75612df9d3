#pragma once

// How often a vCPU left the guest for the VMM's code, and what went over the devices' sockets.

#include <cstdint>
#include <string_view>

#include "vfio_user/result.h"

namespace outboard::bench {

struct Counts {
  double exits = 0;     // to user space, for memory and ports
  double messages = 0;  // sent to the devices' servers
  double replies = 0;   // waited for

  friend Counts operator-(const Counts& a, const Counts& b) {
    return {a.exits - b.exits, a.messages - b.messages, a.replies - b.replies};
  }
  friend Counts operator/(const Counts& a, double b) {
    return {a.exits / b, a.messages / b, a.replies / b};
  }
  friend bool operator==(const Counts&, const Counts&) = default;
};

// From what `outboard run --boot-report` leaves (schema 1). All devices together.
[[nodiscard]] vfio_user::Result<Counts> parse_counts(std::string_view report);

}  // namespace outboard::bench
