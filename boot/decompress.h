// Unpacks what a bzImage carries: one compressed stream whose unpacked size is known beforehand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "boot/result.h"

namespace outboard::boot {

enum class Compression { gzip, bzip2, lzma, xz, lzo, lz4, zstd };

[[nodiscard]] std::string_view compression_name(Compression compression);

// Decided by the first bytes, as the kernel's own tools do; empty when they are none of these.
[[nodiscard]] std::optional<Compression> detect_compression(std::span<const std::byte> packed);

// The unpacked kernel, tens of megabytes: in huge pages where the host has them, since ten thousand
// small ones take as long to be had as to be filled.
class Unpacked {
 public:
  explicit Unpacked(std::size_t size);  // throws std::bad_alloc
  Unpacked(Unpacked&& other) noexcept
      : bytes_(std::exchange(other.bytes_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Unpacked& operator=(Unpacked&&) = delete;
  ~Unpacked();

  [[nodiscard]] std::span<std::byte> span() { return {bytes_, size_}; }
  [[nodiscard]] std::span<const std::byte> span() const { return {bytes_, size_}; }

 private:
  std::byte* bytes_;  // from aligned_alloc()
  std::size_t size_;
};

// Unpacks exactly `size` bytes, or fails. Bytes of `packed` behind the stream are ignored.
[[nodiscard]] Result<Unpacked> decompress(Compression compression,
                                          std::span<const std::byte> packed, std::size_t size);

// As above, of the start of a stream only: fills `out` as far as the bytes given allow and returns
// how many were written. For telling what a gzip file holds.
[[nodiscard]] std::size_t peek_gzip(std::span<const std::byte> packed, std::span<std::byte> out);

}  // namespace outboard::boot
