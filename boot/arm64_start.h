// What an arm64 kernel finds beside itself at its first instruction: the device tree and the initrd
// (Linux Documentation/arch/arm64/booting.rst). Pure: writes guest memory, keeps nothing.
//
//   from the start of RAM                       what
//   text_offset …                               the kernel, image_size bytes
//   the next multiple of 2 MiB …                device tree, at most 2 MiB
//   … end of RAM, or 32 GiB from its start      initrd, page aligned, as high as it may be
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "boot/kernel.h"
#include "boot/result.h"
#include "boot/start.h"

namespace outboard::boot {

inline constexpr std::size_t kArm64LongestCommandLine =
    2047;  // Linux COMMAND_LINE_SIZE, less the zero

// Where an initrd of `size` bytes goes, guest-physical, whatever the kernel; none: it is larger
// than the memory.
[[nodiscard]] std::optional<std::uint64_t> arm64_initrd_address(std::uint64_t ram_base,
                                                                std::uint64_t ram_size,
                                                                std::uint64_t size);

// Writes `tree` and `initrd` (empty: none) into `ram`, which begins at guest-physical `ram_base`
// and holds `kernel`. Errors: no room.
[[nodiscard]] Result<EntryState> place_arm64_boot_data(const LoadedKernel& kernel,
                                                       std::span<const std::byte> tree,
                                                       std::span<const std::byte> initrd,
                                                       std::span<std::byte> ram,
                                                       std::uint64_t ram_base);

}  // namespace outboard::boot
