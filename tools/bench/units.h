#pragma once

// Figures as people read them. Pure.

#include <string>

namespace outboard::bench {

// Nanoseconds as "850 ns", "12.3 µs", "4.56 ms", "7.89 s": three digits.
[[nodiscard]] std::string duration_text(double nanoseconds);
// Bytes as "4.3 MiB".
[[nodiscard]] std::string size_text(double bytes);
// "0.031", "1.07", "12.4".
[[nodiscard]] std::string ratio_text(double ratio);

}  // namespace outboard::bench
