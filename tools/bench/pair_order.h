#pragma once

// Who goes first in a pair. Two programs measured in turn see the same noise only if neither is
// always the one that follows the other.

#include <cstddef>

namespace outboard::bench {

enum class Turn { ours, theirs };

// Of pair 0, 1, 2, 3: ours-theirs, theirs-ours, ours-theirs, theirs-ours. `half` is 0 or 1.
[[nodiscard]] constexpr Turn turn_of(std::size_t pair, std::size_t half) {
  return (pair + half) % 2 == 0 ? Turn::ours : Turn::theirs;
}

}  // namespace outboard::bench
