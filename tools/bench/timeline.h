#pragma once

// The pictures of the page, as SVG whose colours come from the page's style sheet. Pure.

#include <string>

#include "tools/bench/summary.h"

namespace outboard::bench {

[[nodiscard]] std::string escape_html(const std::string& text);

// The median run of every side as a bar of phases, all on one scale.
[[nodiscard]] std::string overview_svg(const Results& results);

// The median run of one side, mark by mark, on a scale of its own: each bar is the time since the
// mark before.
[[nodiscard]] std::string waterfall_svg(const Side& side, const std::string& last_key);

// The ratio of each pair as a dot, and their median.
[[nodiscard]] std::string ratios_svg(const Duel& duel);

}  // namespace outboard::bench
