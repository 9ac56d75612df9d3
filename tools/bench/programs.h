#pragma once

// Finding programs, and asking them what they are.

#include <string>
#include <vector>

#include "tools/bench/error.h"
#include "tools/bench/interrupt.h"

namespace outboard::bench {

// `given` if it is not empty, else `name` beside this program (installed, or in a build folder),
// else on PATH. An error names what was looked for and the option that names it.
[[nodiscard]] Result<std::string> find_program(const std::string& name, const std::string& given,
                                               const std::string& option);

// Both outputs of a short command; empty when it fails or takes over 20 s.
[[nodiscard]] std::string output_of(const std::vector<std::string>& argv);

// The first line of that.
[[nodiscard]] std::string first_line_of(const std::vector<std::string>& argv);

}  // namespace outboard::bench
