#pragma once

// The JSON that `outboard run --boot-report` leaves (schema 1), read back.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "tools/bench/run.h"

namespace outboard::bench {

struct BootReport {
  std::string version;
  int exit_status = 0;
  std::string stop_reason;
  std::uint64_t start = 0;  // nanoseconds, CLOCK_MONOTONIC: the marks count from here
  bool started_by_parent = false;
  std::string page_size;                        // of guest memory
  std::string kvm;                              // "hardware" or "software"
  std::vector<Mark> marks;                      // in order of time, counted from `start`
  std::map<std::string, std::uint64_t> counts;  // "port exits", "nvme0: attach round trips", …
  std::optional<Memory> memory;                 // at the end
  std::optional<Memory> memory_at_first_run;
  std::vector<std::string> shared_vectors;  // devices whose admin and I/O queues share a vector
};

// The error says what is wrong with the text, for people.
[[nodiscard]] tl::expected<BootReport, std::string> parse_boot_report(std::string_view text);

}  // namespace outboard::bench
