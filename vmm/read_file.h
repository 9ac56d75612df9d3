#pragma once

#include <optional>
#include <string>

namespace outboard::vmm {

// All of a file of the kernel's (/proc, /sys), whose size says nothing. None: it cannot be read.
[[nodiscard]] std::optional<std::string> read_file(const char* path);

}  // namespace outboard::vmm
