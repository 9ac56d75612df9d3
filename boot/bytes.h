// Little- and big-endian loads and stores on byte spans, for headers that may be hostile.
//
// The callers check that offset + sizeof(T) lies inside the span; fits() is the check, and it
// cannot overflow.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace outboard::boot {

static_assert(std::endian::native == std::endian::little, "loads below copy bytes as they are");

[[nodiscard]] constexpr bool fits(std::uint64_t offset, std::uint64_t size, std::uint64_t total) {
  return offset <= total && size <= total - offset;
}

template <std::unsigned_integral T>
[[nodiscard]] T load(std::span<const std::byte> bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

template <std::unsigned_integral T>
void store(std::span<std::byte> bytes, std::size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
}

[[nodiscard]] inline std::uint16_t load_be16(std::span<const std::byte> bytes, std::size_t offset) {
  return __builtin_bswap16(load<std::uint16_t>(bytes, offset));
}

[[nodiscard]] inline std::uint32_t load_be32(std::span<const std::byte> bytes, std::size_t offset) {
  return __builtin_bswap32(load<std::uint32_t>(bytes, offset));
}

// Whether `magic` stands at `offset`; false when the span ends before it.
[[nodiscard]] inline bool has_magic(std::span<const std::byte> bytes, std::size_t offset,
                                    std::string_view magic) {
  return fits(offset, magic.size(), bytes.size()) &&
         std::memcmp(bytes.data() + offset, magic.data(), magic.size()) == 0;
}

[[nodiscard]] constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

}  // namespace outboard::boot
