// Numbers in messages.
#pragma once

#include <array>
#include <charconv>
#include <cstdint>
#include <string>

namespace outboard::boot {

[[nodiscard]] inline std::string hex(std::uint64_t value) {
  std::array<char, 16> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, 16).ptr;
  return "0x" + std::string(digits.data(), end);
}

// Rounded up, so that a message never asks for too little.
[[nodiscard]] inline std::string mebibytes(std::uint64_t bytes) {
  return std::to_string((bytes >> 20) + ((bytes & 0xfffff) != 0 ? 1 : 0)) + " MiB";
}

}  // namespace outboard::boot
