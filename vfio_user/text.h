// Small pieces of error messages.
#pragma once

#include <cstdint>
#include <string>

namespace outboard::vfio_user {

// "0x1c".
[[nodiscard]] std::string hex(std::uint64_t value);

// "EINVAL (Invalid argument)"; "errno 4711" for numbers that have no name.
[[nodiscard]] std::string errno_text(int code);

// "BAR0" … "BAR5", "ROM", "config space", "VGA"; "region 12".
[[nodiscard]] std::string region_text(std::uint32_t index);

// "INTx", "MSI", "MSI-X", "ERR", "REQ"; "interrupt 7".
[[nodiscard]] std::string irq_text(std::uint32_t index);

}  // namespace outboard::vfio_user
