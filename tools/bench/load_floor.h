#pragma once

// What must be done to start from a kernel file, and nothing else: the file is unpacked, if it is
// packed, and copied into fresh guest memory.

#include <cstdint>
#include <string>

#include "tools/bench/error.h"
#include "tools/bench/sample.h"

namespace outboard::bench {

// Nanoseconds of each of `rounds` times, on one thread. `memory`: bytes of the guest's memory.
// Errors: the file cannot be read or is no kernel (ExitStatus::missing).
[[nodiscard]] Result<Sample> load_floor(const std::string& kernel, std::uint64_t memory,
                                        int rounds);

}  // namespace outboard::bench
