// An x86-64 ELF kernel: its PVH entry note and its loadable segments. Everything outside the
// program headers and what they point at is ignored (section headers, and what a bzImage's payload
// appends behind the ELF: the relocation table).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "boot/result.h"

namespace outboard::boot {

struct ElfSegment {
  std::uint64_t file_offset = 0;
  std::uint64_t file_size = 0;
  std::uint64_t address = 0;      // guest-physical: p_paddr
  std::uint64_t memory_size = 0;  // file_size and more; the rest is zero
};

struct ElfKernel {
  std::vector<ElfSegment> segments;  // non-empty ones, in the order of the headers
  std::optional<std::uint64_t> pvh_entry;
  std::uint64_t end = 0;  // highest address + memory_size
};

[[nodiscard]] bool is_elf(std::span<const std::byte> file);

// Checks every header against the size of `file`; afterwards each segment's bytes lie inside it and
// no address arithmetic on a segment overflows.
[[nodiscard]] Result<ElfKernel> parse_elf(std::span<const std::byte> file);

// Checks all segments against kKernelFloor and the size of `ram`, then copies and zero-fills them.
[[nodiscard]] Result<void> place_elf(const ElfKernel& kernel, std::span<const std::byte> file,
                                     std::span<std::byte> ram);

}  // namespace outboard::boot
