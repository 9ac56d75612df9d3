#pragma once

namespace outboard::box {

// "openat" for 257 on x86-64; null for a number that the headers of the build did not know.
// Async-signal-safe.
[[nodiscard]] const char* syscall_name(long number);

}  // namespace outboard::box
