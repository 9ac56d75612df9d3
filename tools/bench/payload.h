#pragma once

// The guest of `outboard-bench start` (guest/poweroff.S), carried in this program.

#include <string_view>

namespace outboard::bench {

// An ELF with a PVH note. Given a command line that begins with 'h' it holds instead of powering
// off.
[[nodiscard]] std::string_view poweroff_payload();

inline constexpr std::string_view kPayloadRuns = "run";
inline constexpr std::string_view kPayloadHolds = "hold";

}  // namespace outboard::bench
