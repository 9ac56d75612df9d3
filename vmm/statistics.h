#pragma once

// The machine's counters as text for a person. Pure.

#include <optional>
#include <string>

#include "vmm/box/box.h"
#include "vmm/machine_counters.h"
#include "vmm/marks.h"
#include "vmm/memory_use.h"

namespace outboard::vmm {

// Boot times, exits, each device's messages, memory, the sandbox (none: it is off): several lines,
// each ended by '\n'.
[[nodiscard]] std::string statistics_text(const Marks& marks, const MachineCounters& counters,
                                          const std::optional<MemoryUse>& memory,
                                          const std::optional<box::Report>& sandbox = std::nullopt);

}  // namespace outboard::vmm
