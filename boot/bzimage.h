// A Linux x86 bzImage: its setup header, its compressed payload, and its own 64-bit entry
// (Linux Documentation/arch/x86/boot.rst; the offsets are that document's).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "boot/result.h"

namespace outboard::boot {

inline constexpr std::size_t kSetupHeaderOffset = 0x1f1;

// The fields used here, all checked against the size of the file.
struct BzImage {
  std::span<const std::byte> setup_header;    // from kSetupHeaderOffset to the header's own end
  std::span<const std::byte> protected_mode;  // what the kernel's own loader would load
  std::span<const std::byte> payload;         // compressed ELF, then its unpacked size in 4 bytes
  std::uint64_t unpacked_size = 0;            // from those 4 bytes: not to be trusted
  bool entry64 = false;                       // XLF_KERNEL_64: it is a 64-bit kernel
  bool relocatable = false;
  std::uint64_t alignment = 0;
  std::uint64_t preferred_address = 0;
  std::uint64_t init_size = 0;  // bytes it needs from its load address on while it unpacks itself
  std::string version;
};

[[nodiscard]] bool is_bzimage(std::span<const std::byte> file);
[[nodiscard]] Result<BzImage> parse_bzimage(std::span<const std::byte> file);

// Copies the protected-mode code to its preferred address (or, when that is outside `ram` or below
// kKernelFloor and the kernel is relocatable, the lowest aligned one) and returns that address.
[[nodiscard]] Result<std::uint64_t> place_bzimage(const BzImage& image, std::span<std::byte> ram);

}  // namespace outboard::boot
