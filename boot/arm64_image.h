// A Linux arm64 Image (Linux Documentation/arch/arm64/booting.rst; the offsets are that
// document's), as it is, as one gzip stream, or packed in an EFI zboot image.
//
// Pure: reads the file's bytes, writes guest memory, keeps nothing. The bytes may be hostile: every
// offset and size is checked, and nothing is allocated on the word of a header beyond the size of
// the guest's memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "boot/kernel.h"
#include "boot/result.h"
#include "boot/unpacked_store.h"

namespace outboard::boot {

struct Arm64Image {
  std::uint64_t text_offset = 0;  // from a 2 MiB boundary to its first byte
  std::uint64_t image_size = 0;   // bytes it takes in memory, more than the file has
  std::uint32_t page_kib = 0;     // size of the kernel's pages; 0: it does not say
};

[[nodiscard]] bool is_arm64_image(std::span<const std::byte> file);
// Packed: a gzip stream, or an EFI zboot image, whatever is in it.
[[nodiscard]] bool is_packed_arm64(std::span<const std::byte> file);

// The header, checked.
[[nodiscard]] Result<Arm64Image> parse_arm64_image(std::span<const std::byte> file);

// Loads `file` into `ram`, which begins at guest-physical `ram_base`, a multiple of 2 MiB. The
// addresses of the kernel returned are guest-physical. Errors name what the bytes are and the
// remedy. `store` as for load_kernel().
[[nodiscard]] Result<LoadedKernel> load_arm64_kernel(std::span<const std::byte> file,
                                                     std::span<std::byte> ram,
                                                     std::uint64_t ram_base,
                                                     UnpackedStore* store = nullptr);

// As expected_extent() of kernel.h, the address counted from the start of RAM.
[[nodiscard]] Extent expected_arm64_extent(std::span<const std::byte> file, std::uint64_t ram_size);

}  // namespace outboard::boot
