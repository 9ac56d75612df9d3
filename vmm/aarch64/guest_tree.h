#pragma once

// The device tree of the arm64 machine: what boot/fdt.h needs to know, from layout.h. Pure, and
// built and tested on every host.

#include <optional>

#include "boot/fdt.h"
#include "vmm/arch.h"

namespace outboard::vmm::aarch64 {

// `seeds`: none in a tree that is only shown. Errors (ExitStatus::boot_image): the initrd is larger
// than the memory, the command line too long.
[[nodiscard]] Result<std::vector<std::byte>> guest_tree(
    const arch::GuestDescription& description, const arch::MemoryLayout& layout,
    const std::optional<boot::FdtDescription::Seeds>& seeds);

}  // namespace outboard::vmm::aarch64
