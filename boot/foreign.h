// Names a file that is no kernel, or one of another machine, and the remedy. Pure.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace outboard::boot {

enum class Wanted { x86_64, arm64 };  // the machine that the kernel is for

// "is a …; give …": one line to put behind the file's name.
[[nodiscard]] std::string describe_foreign(std::span<const std::byte> file, Wanted wanted);

}  // namespace outboard::boot
