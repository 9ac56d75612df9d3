// The functions of PCI bus 0, by device number: function 0 of each of 32 devices.
#pragma once

#include <array>
#include <cstdint>

#include "devices/pci_function.h"

namespace outboard::devices {

// Filled before the vCPUs run, read by any vCPU. Does not own the functions.
using PciSlots = std::array<PciFunction*, 32>;

// Reads and writes of bus 0 with the answer of a bus without a device: all ones, writes dropped
// (PCI 3.0 §3.2.2.3.4). Registers at or beyond 4096 and sizes other than 1, 2 and 4 count as
// absent.
std::uint32_t bus0_read(const PciSlots& slots, std::uint32_t device, std::uint32_t function,
                        std::uint32_t reg, std::uint32_t size);
void bus0_write(const PciSlots& slots, std::uint32_t device, std::uint32_t function,
                std::uint32_t reg, std::uint32_t size, std::uint32_t value);

}  // namespace outboard::devices
