// A BAR as the guest sees it.
#pragma once

#include <cstdint>

namespace outboard::devices {

struct BarInfo {
  enum class Kind { io, memory32, memory64, rom };
  std::uint32_t region = 0;  // 0-5, 6 for the ROM
  Kind kind = Kind::memory32;
  bool prefetchable = false;
  std::uint64_t size = 0;     // power of two, bytes
  std::uint64_t address = 0;  // current base, 0 when not placed
  std::uint64_t mapped = 0;   // bytes of it that the guest reaches without an exit
};

}  // namespace outboard::devices
