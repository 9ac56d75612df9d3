#pragma once

// One cold run of a VMM, watched from outside: its process, its console, the device server's clock.

#include <chrono>
#include <string>
#include <vector>

#include "tools/bench/disk_server.h"
#include "tools/bench/error.h"
#include "tools/bench/interrupt.h"
#include "tools/bench/run.h"

namespace outboard::bench {

// What ends a run, beside the VMM's own end and the deadline.
enum class Until {
  exit,          // nothing else
  first_byte,    // console output
  first_read,    // the server completed the kernel's first read
  console_line,  // a console line that contains RunPlan::line
};

struct RunPlan {
  std::vector<std::string> argv;
  std::string report;            // outboard's boot report; empty: the VMM writes none
  DiskServer* server = nullptr;  // the first disk's; its clock is read
  Until until = Until::exit;
  std::string line;
  bool read_memory = false;  // at the first byte of the console, with the guest holding
  bool any_status = false;   // a guest that cannot live long is measured as far as it gets
  std::chrono::milliseconds limit{60'000};
};

// Marks count from the moment before the process was made. The error holds what the VMM said.
[[nodiscard]] Result<Run> run_guest(const RunPlan& plan, Interrupt& interrupt);

// RssAnon, RssFile and RssShmem of /proc/PID/status, given its text.
[[nodiscard]] std::optional<Memory> memory_of_status(std::string_view status);

}  // namespace outboard::bench
