// Cuts an access into naturally aligned pieces of 1, 2 or 4 bytes, in ascending order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace outboard::devices {

// Calls piece(offset, bytes) for each; bytes is a part of data and keeps its constness.
template <class Byte, class Piece>
void for_aligned_pieces(std::uint64_t offset, std::span<Byte> data, Piece&& piece) {
  while (!data.empty()) {
    std::size_t size = 4;
    while (size > data.size() || offset % size != 0) size /= 2;
    piece(offset, data.first(size));
    data = data.subspan(size);
    offset += size;
  }
}

// Little-endian values of 1 to 8 bytes.
inline std::uint64_t load_le(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    value |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  }
  return value;
}

inline void store_le(std::span<std::byte> bytes, std::uint64_t value) {
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(value >> (8 * i));
}

}  // namespace outboard::devices
