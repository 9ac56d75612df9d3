#pragma once

// Results for people at a terminal.

#include <string>

#include "tools/bench/summary.h"

namespace outboard::bench {

[[nodiscard]] std::string text_table(const Results& results);

// "nvme0: described", "server: first read completed".
[[nodiscard]] std::string label_of(const std::string& device, const std::string& name);

}  // namespace outboard::bench
