#pragma once

// A Trace in the trace event format that Perfetto and chrome://tracing open.

#include <cstdint>
#include <functional>
#include <string_view>

#include "vmm/marks.h"
#include "vmm/trace.h"

namespace outboard::vmm {

// Process 1 has a track for each of `vcpus`, with every exit to user space. Each device is a
// process of its own, whose first track has its messages, from sending to reply; one that was in
// flight beside another is in the next track, since what overlaps on one track would not be drawn.
// The marks are instant events, of process 1 or of their device. Times are microseconds since
// process start. `sink` gets the JSON text piece by piece. The machine has ended.
void write_trace(const Trace& trace, const Marks& marks, std::uint32_t vcpus,
                 const std::function<void(std::string_view)>& sink);

}  // namespace outboard::vmm
