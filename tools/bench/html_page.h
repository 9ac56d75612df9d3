#pragma once

// Results as one self-contained page: no script, no network, light and dark.

#include <string>

#include "tools/bench/summary.h"

namespace outboard::bench {

[[nodiscard]] std::string html_page(const Results& results);

}  // namespace outboard::bench
