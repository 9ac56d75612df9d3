#pragma once

// The figures of `outboard-bench access` as text for people and as JSON. Pure.

#include <string>

#include "tools/bench/access_rows.h"

namespace outboard::bench {

// What the figures were taken on and with; lines for the head of the table, members of the JSON.
struct AccessSetting {
  std::string version;    // of outboard
  std::string machine;    // one line
  std::string placement;  // "VMM on CPU 0, servers on CPU 1", "wherever the scheduler puts them"
};

[[nodiscard]] std::string access_table(const AccessSetting& setting, const AccessFigures& figures);

// {"schema": 1, "command": "access", ..., "rows": [...], "floors": [...], "figures": [...]}
[[nodiscard]] std::string access_json(const AccessSetting& setting, const AccessFigures& figures);

// "850 ps", "12.3 ns", "45.6 us", "7.89 ms": three digits.
[[nodiscard]] std::string time_text(double ns);

}  // namespace outboard::bench
