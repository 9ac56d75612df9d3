// Identities this VMM gives to functions of its own.
#pragma once

#include <cstdint>

namespace outboard::devices::pci {

inline constexpr std::uint16_t kHostBridgeVendor =
    0x1b36;  // the vendor id paravirtual bridges share
inline constexpr std::uint16_t kHostBridgeDevice = 0x0008;  // generic PCIe host bridge
inline constexpr std::uint32_t kClassHostBridge = 0x060000;

}  // namespace outboard::devices::pci
