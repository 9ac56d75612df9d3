// Copies into memory that a guest looks at meanwhile.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace outboard::vfio_user {

/// Stores `from`, of at most 8 bytes, to `to` after everything stored before: in one access if it
/// is a word at an address that is a multiple of its size, else byte by byte.
inline void store_released(std::byte* to, std::span<const std::byte> from) {
  const auto whole = [&]<class Word>(Word word) {
    if (from.size() != sizeof word || reinterpret_cast<std::uintptr_t>(to) % sizeof word != 0) {
      return false;
    }
    std::memcpy(&word, from.data(), sizeof word);
    std::atomic_ref<Word>(*reinterpret_cast<Word*>(to)).store(word, std::memory_order_release);
    return true;
  };
  if (whole(std::uint64_t{}) || whole(std::uint32_t{}) || whole(std::uint16_t{})) return;
  for (std::size_t i = 0; i < from.size(); ++i) {
    std::atomic_ref<std::byte>(to[i]).store(from[i], std::memory_order_release);
  }
}

/// Copies `from` to `to`, which is as long. The last word, 8 bytes or less, becomes visible after
/// all others: a guest that polls the end of a descriptor for a phase or an ownership bit then
/// finds the rest of it. memcpy alone promises no order, and CPUs other than x86 make use of that.
inline void copy_in_order(std::span<std::byte> to, std::span<const std::byte> from) {
  if (from.empty()) return;
  const std::size_t last = (from.size() - 1) / sizeof(std::uint64_t) * sizeof(std::uint64_t);
  std::memcpy(to.data(), from.data(), last);
  store_released(to.data() + last, from.subspan(last));
}

}  // namespace outboard::vfio_user
