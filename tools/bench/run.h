#pragma once

// What one cold run of a VMM gave: marks on one clock, and memory.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace outboard::bench {

struct Mark {
  std::string device;  // empty: the VMM's own; "server", "bench": seen from there
  std::string key;     // stable, for programs
  std::string name;    // for people
  double at = 0;       // nanoseconds since the VMM's process was started
};

// Keys of marks that are not outboard's own but seen from outside, for every VMM alike.
inline constexpr std::string_view kFirstByte = "first_byte";      // bench: console output read
inline constexpr std::string_view kConsoleLine = "console_line";  // bench: the awaited line read
inline constexpr std::string_view kEnded = "ended";               // bench: the process has ended
inline constexpr std::string_view kServerConnected = "server_connected";
inline constexpr std::string_view kServerEnabled = "server_enabled";
inline constexpr std::string_view kServerDoorbell = "server_doorbell";
inline constexpr std::string_view kServerRead = "server_read";
// Of outboard's own marks, those that this program looks for.
inline constexpr std::string_view kFirstRun = "first_run";

// Resident memory of a VMM's process; the guest's is shared memory.
struct Memory {
  std::uint64_t anonymous = 0, file = 0, shared = 0;  // bytes
  [[nodiscard]] std::uint64_t own() const { return anonymous + file; }
};

struct Run {
  std::vector<Mark> marks;                      // in order of time
  std::optional<Memory> memory;                 // at the first KVM_RUN, or as told by `marks`
  std::map<std::string, std::uint64_t> counts;  // exits, messages, round trips, by name

  [[nodiscard]] std::optional<double> at(std::string_view key) const {
    for (const Mark& mark : marks) {
      if (mark.key == key) return mark.at;
    }
    return std::nullopt;
  }
};

}  // namespace outboard::bench
