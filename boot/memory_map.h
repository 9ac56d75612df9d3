// One range of the guest's physical memory map, as the machine describes it and as the kernel is
// told. Plain data; no owner, no thread.
#pragma once

#include <cstdint>

namespace outboard::boot {

struct MemoryRange {
  enum class Kind {
    ram,       // E820 type 1: the guest may use it
    reserved,  // E820 type 2: firmware data, ECAM; never handed out
    acpi,      // E820 type 3: tables the guest may reclaim after it has read them
  };

  std::uint64_t base = 0;  // guest-physical, bytes
  std::uint64_t size = 0;  // bytes
  Kind kind = Kind::ram;

  bool operator==(const MemoryRange&) const = default;
};

// The type number of the E820 map and of the PVH memory map, which share their values.
[[nodiscard]] constexpr std::uint32_t e820_type(MemoryRange::Kind kind) {
  switch (kind) {
    case MemoryRange::Kind::ram:
      return 1;
    case MemoryRange::Kind::acpi:
      return 3;
    case MemoryRange::Kind::reserved:
      break;
  }
  return 2;
}

}  // namespace outboard::boot
