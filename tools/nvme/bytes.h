// Fields at fixed offsets of a byte buffer, as the specification's tables give them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

namespace outboard::nvme {

template <class T>
void put(std::span<std::byte> buffer, std::size_t offset, std::type_identity_t<T> value) {
  std::memcpy(buffer.subspan(offset, sizeof(T)).data(), &value, sizeof(T));
}

template <class T>
T get(std::span<const std::byte> buffer, std::size_t offset) {
  T value;
  std::memcpy(&value, buffer.subspan(offset, sizeof(T)).data(), sizeof(T));
  return value;
}

// ASCII, left-justified, padded with spaces (§1.5).
inline void put_text(std::span<std::byte> buffer, std::size_t offset, std::size_t size,
                     std::string_view text) {
  const auto field = buffer.subspan(offset, size);
  std::fill(field.begin(), field.end(), std::byte{' '});
  std::memcpy(field.data(), text.data(), std::min(size, text.size()));
}

}  // namespace outboard::nvme
