#pragma once

// Sizes and times as people write them: "512M", "4G", "64KiB", "5s", "250ms".

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace outboard::vmm {

// Bytes. Suffixes K, M, G, T (binary, also written KiB or KB), or none. Empty on nonsense, on a
// sign, on a fraction and on overflow.
[[nodiscard]] std::optional<std::uint64_t> parse_size(std::string_view text);

// An address: hexadecimal after 0x, or as a size is written.
[[nodiscard]] std::optional<std::uint64_t> parse_address(std::string_view text);

// Suffixes ms, s, m, h; a suffix is required. Empty on nonsense, on a sign and on overflow.
[[nodiscard]] std::optional<std::chrono::milliseconds> parse_duration(std::string_view text);

// The shortest exact form: 536870912 -> "512M", 1000 -> "1000".
[[nodiscard]] std::string format_size(std::uint64_t bytes);
[[nodiscard]] std::string format_duration(std::chrono::milliseconds time);

}  // namespace outboard::vmm
