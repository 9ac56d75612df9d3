// The bytes of a fuzz target, read as decisions: numbers, choices and runs of bytes, from the
// front.
//
// Once they are used up every number is 0, so choice 0 should be the ordinary case: a short input
// then ends in ordinary behaviour, and an input of no bytes at all is the plain case.
//
// Any thread may read on, as a server does that answers whoever asks it: what follows is then luck,
// but each byte is used once.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

namespace outboard::fuzz {

class Input final {
 public:
  Input(const std::uint8_t* data, std::size_t size) : left_(std::as_bytes(std::span(data, size))) {}

  // What is left, to be read a second time beside this.
  [[nodiscard]] Input again() const {
    const std::lock_guard lock(mutex_);
    return Input(left_);
  }
  [[nodiscard]] bool empty() const {
    const std::lock_guard lock(mutex_);
    return left_.empty();
  }

  // Little-endian; missing bytes are 0.
  template <class T>
  T take() {
    T value{};
    const auto from = bytes(sizeof(T));
    if (!from.empty()) std::memcpy(&value, from.data(), from.size());
    return value;
  }
  std::uint8_t byte() { return take<std::uint8_t>(); }
  // 0 … limit-1, from as few bytes as that needs.
  std::uint64_t below(std::uint64_t limit) {
    if (limit <= 0x100) return byte() % std::max<std::uint64_t>(limit, 1);
    if (limit <= 0x1'0000) return take<std::uint16_t>() % limit;
    return take<std::uint64_t>() % limit;
  }
  bool one_in(std::uint64_t n) { return below(n) == n - 1; }  // not when the bytes are used up
  template <class T, std::size_t kCount>
  const T& one_of(const T (&list)[kCount]) {
    return list[below(kCount)];
  }
  // A number as programs get them wrong: small, near a power of two, near the top, or anything.
  std::uint64_t number() {
    const std::uint8_t kind = byte();
    const std::uint64_t near = std::uint64_t{1} << (kind & 63);
    switch (kind >> 6) {
      case 0:
        return kind & 63;
      case 1:
        return near + (byte() % 16) - 8;
      case 2:
        return std::uint64_t{0} - (kind & 63) - byte() * std::uint64_t{0x100};
      default:
        return take<std::uint64_t>();
    }
  }
  // At most `count` bytes: fewer when they are used up.
  std::span<const std::byte> bytes(std::size_t count) {
    const std::lock_guard lock(mutex_);
    const auto out = left_.first(std::min(count, left_.size()));
    left_ = left_.subspan(out.size());
    return out;
  }
  std::span<const std::byte> rest() { return bytes(SIZE_MAX); }

 private:
  explicit Input(std::span<const std::byte> left) : left_(left) {}

  mutable std::mutex mutex_;
  std::span<const std::byte> left_;  // under mutex_
};

inline std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// What must hold whatever the input: else the target ends as it would on a memory error.
inline void require(bool holds) {
  if (!holds) __builtin_trap();
}

}  // namespace outboard::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
