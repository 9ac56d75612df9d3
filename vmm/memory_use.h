#pragma once

// How much memory this process has resident, by what stands behind it.

#include <cstdint>
#include <optional>
#include <string_view>

#include "vmm/read_file.h"

namespace outboard::vmm {

// Bytes. Huge pages of hugetlbfs are in none of them, as in the kernel's own RSS.
struct MemoryUse {
  std::uint64_t anonymous = 0;  // heap, stacks, written pages of private files
  std::uint64_t file = 0;       // program and libraries
  std::uint64_t shared = 0;     // memfds: guest memory, and pages that servers share
};

// Reads /proc/self/smaps, whose figures are exact; those of /proc/self/status lag behind by up to
// 64 pages a thread. Takes about a millisecond. None: there is no such file.
[[nodiscard]] std::optional<MemoryUse> memory_use(
    const KernelFile& smaps = KernelFile("/proc/self/smaps"));

// The sums of a text in the format of /proc/PID/smaps (proc(5)). Pure.
[[nodiscard]] MemoryUse sum_smaps(std::string_view smaps);

}  // namespace outboard::vmm
