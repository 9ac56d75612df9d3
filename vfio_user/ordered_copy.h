// Copies into memory that a guest looks at meanwhile.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace outboard::vfio_user {

/// Copies `from` to `to`, which is as long. The last word, 8 bytes or less, becomes visible after
/// all others: a guest that polls the end of a descriptor for a phase or an ownership bit then
/// finds the rest of it. memcpy alone promises no order, and CPUs other than x86 make use of that.
inline void copy_in_order(std::span<std::byte> to, std::span<const std::byte> from) {
  if (from.empty()) return;
  const std::size_t last = (from.size() - 1) / sizeof(std::uint64_t) * sizeof(std::uint64_t);
  std::memcpy(to.data(), from.data(), last);
  std::atomic_thread_fence(std::memory_order_release);
  std::memcpy(to.data() + last, from.data() + last, from.size() - last);
}

}  // namespace outboard::vfio_user
