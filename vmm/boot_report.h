#pragma once

// What --boot-report writes: one run in figures, as JSON for programs. Pure.

#include <optional>
#include <string>

#include "vmm/box/box.h"
#include "vmm/host_facts.h"
#include "vmm/machine_config.h"
#include "vmm/machine_counters.h"
#include "vmm/marks.h"
#include "vmm/memory_use.h"

namespace outboard::vmm {

struct BootReport {
  const MachineConfig& config;
  const Marks& marks;
  HostFacts host = {};
  int exit_status = 0;
  std::string message = {};                    // the line that explains the end
  MachineCounters counters = {};               // empty: the machine was never made
  std::optional<MemoryUse> at_first_run = {};  // just after the vCPUs were let loose
  std::optional<MemoryUse> at_end = {};        // with all of the machine still there
  std::optional<box::Report> sandbox = {};     // none: it was off
};

// "power-off", "device-lost", …: an exit status of the program as a word.
[[nodiscard]] std::string_view stop_reason(int exit_status, const Marks& marks);

[[nodiscard]] std::string to_json(const BootReport& report);

}  // namespace outboard::vmm
