#pragma once

// The ACPI tables of the x86-64 machine and the code at its reset vector. Pure.

#include <cstdint>
#include <vector>

#include "boot/acpi.h"
#include "vmm/arch.h"

namespace outboard::vmm::x86_64 {

struct FirmwareTables {
  std::uint64_t base = 0;  // guest-physical
  std::uint64_t rsdp = 0;
  std::vector<std::byte> bytes;
  std::vector<boot::NamedTable> tables;  // where each lies in `bytes`
  // Code for a guest that resets by jumping to where firmware would be.
  std::uint64_t reset_vector = 0;  // guest-physical
  std::vector<std::byte> reset_code;
};

[[nodiscard]] FirmwareTables firmware_tables(std::uint32_t vcpus, const arch::MemoryLayout& layout);

}  // namespace outboard::vmm::x86_64
