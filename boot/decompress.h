// Unpacks what a bzImage carries: one compressed stream whose unpacked size is known beforehand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "boot/result.h"

namespace outboard::boot {

enum class Compression { gzip, bzip2, lzma, xz, lzo, lz4, zstd };

[[nodiscard]] std::string_view compression_name(Compression compression);

// Decided by the first bytes, as the kernel's own tools do; empty when they are none of these.
[[nodiscard]] std::optional<Compression> detect_compression(std::span<const std::byte> packed);

// Bytes that are not zeroed before they are written: the unpacked kernel has tens of megabytes.
class Unpacked {
 public:
  explicit Unpacked(std::size_t size)
      : bytes_(std::make_unique_for_overwrite<std::byte[]>(size)), size_(size) {}
  [[nodiscard]] std::span<std::byte> span() { return {bytes_.get(), size_}; }
  [[nodiscard]] std::span<const std::byte> span() const { return {bytes_.get(), size_}; }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t size_;
};

// Unpacks exactly `size` bytes, or fails. Bytes of `packed` behind the stream are ignored.
[[nodiscard]] Result<Unpacked> decompress(Compression compression,
                                          std::span<const std::byte> packed, std::size_t size);

// As above, of the start of a stream only: fills `out` as far as the bytes given allow and returns
// how many were written. For telling what a gzip file holds.
[[nodiscard]] std::size_t peek_gzip(std::span<const std::byte> packed, std::span<std::byte> out);

}  // namespace outboard::boot
