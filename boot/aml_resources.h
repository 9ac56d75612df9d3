// Resource descriptors for _CRS (ACPI 6.3 §6.4), and the template that holds them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>

#include "boot/aml.h"

namespace outboard::boot::aml {

// ResourceTemplate: the descriptors and the end tag, as a buffer.
[[nodiscard]] Bytes resource_template(std::span<const Bytes> descriptors);
[[nodiscard]] Bytes resource_template(std::initializer_list<Bytes> descriptors);

// Ports a device consumes: 16-bit decode, fixed.
[[nodiscard]] Bytes io(std::uint16_t port, std::uint8_t count);
// A window of memory a device consumes, fixed, read/write: 32-bit or 64-bit form as it needs.
[[nodiscard]] Bytes memory_fixed(std::uint64_t base, std::uint64_t size);
// One interrupt a device consumes: edge-triggered, active high, exclusive (Extended Interrupt).
[[nodiscard]] Bytes edge_interrupt(std::uint32_t gsi);

// What a bridge hands down: fixed ranges, positively decoded.
[[nodiscard]] Bytes bus_window(std::uint16_t first, std::uint16_t last);
[[nodiscard]] Bytes io_window(std::uint64_t base, std::uint64_t size);        // within 64 KiB
[[nodiscard]] Bytes memory_window32(std::uint64_t base, std::uint64_t size);  // below 4 GiB
[[nodiscard]] Bytes memory_window64(std::uint64_t base, std::uint64_t size);

}  // namespace outboard::boot::aml
