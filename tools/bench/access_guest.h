#pragma once

// The bench's guest: an ELF with a PVH note, part of the program. See guest/.

#include <cstddef>
#include <span>

namespace outboard::bench {

[[nodiscard]] std::span<const std::byte> guest_image();

}  // namespace outboard::bench
