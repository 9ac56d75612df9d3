// Says what a file that is no x86-64 kernel seems to be, so that the message can name the remedy.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace outboard::boot {

// One line for a file that is neither an ELF nor a bzImage.
[[nodiscard]] std::string describe_foreign(std::span<const std::byte> file);

}  // namespace outboard::boot
