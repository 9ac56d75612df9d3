#pragma once

// Results for programs: schema 1. All times are nanoseconds, all sizes bytes.

#include <string>

#include "tools/bench/summary.h"

namespace outboard::bench {

[[nodiscard]] std::string results_json(const Results& results);

}  // namespace outboard::bench
