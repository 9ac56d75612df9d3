#pragma once

// A bzImage's kernel as the ELF that it carries: QEMU starts either, and not equally fast.

#include <string>

#include "tools/bench/error.h"

namespace outboard::bench {

// Writes it to `to`. True when `kernel` was a bzImage and `to` is there; false when it is
// something else already.
[[nodiscard]] Result<bool> unpack_kernel(const std::string& kernel, const std::string& to);

}  // namespace outboard::bench
