#pragma once

// The x86-64 machine's address map, ports and GSIs. Everything that has a fixed place is here and
// nowhere else.
//
//   guest-physical                        what
//   0x0'0000'0000 .. 0x0'0009'FFFF        RAM (boot data)
//   0x0'000A'0000 .. 0x0'000F'FFFF        RAM, reserved in the map; ACPI tables at 0xE'0000, the
//                                         reset vector at 0xF'FFF0
//   0x0'0010'0000 .. low end              RAM; low end = min(memory, 3 GiB)
//   0x0'C000'0000 .. 0x0'DFFF'FFFF        32-bit PCI window
//   0x0'E000'0000 .. 0x0'E00F'FFFF        ECAM of bus 0
//   0x0'FEC0'0000, 0x0'FEE0'0000          IOAPIC, local APICs
//   0x0'FEFF'C000 .. 0x0'FEFF'FFFF        KVM's own pages (TSS, identity map)
//   0x1'0000'0000 .. high end             RAM beyond 3 GiB
//   high end, 1 GiB aligned, up           64-bit PCI window, at most 256 GiB
//
//   port                                  what
//   0x3F8 .. 0x3FF                        UART
//   0x600 .. 0x607                        power block: sleep control, sleep status, reset,
//                                         0x606 boot marks
//   0xCF8 .. 0xCFF                        PCI configuration
//   0x1000 .. 0xFFFF                      I/O BARs
//
//   GSI                                   what
//   4                                     UART, edge
//   5                                     generic event device (power button), edge
//   16 .. 23                              INTA of PCI slots 1 .. 8, level, never shared
//   24 and up                             message-signalled

#include <cstdint>

#include "vmm/machine_config.h"

namespace outboard::vmm::x86_64 {

constexpr std::uint64_t kLowMemoryEnd = 0xC000'0000;
constexpr std::uint64_t kHighMemoryBase = 0x1'0000'0000;
constexpr std::uint64_t kLegacyHoleBase = 0xA'0000;
constexpr std::uint64_t kLegacyHoleEnd = 0x10'0000;
constexpr std::uint64_t kAcpiBase = 0xE'0000;
constexpr std::uint64_t kResetVector = 0xF'FFF0;  // F000:FFF0 in real mode

constexpr std::uint64_t kMmio32Base = 0xC000'0000;
constexpr std::uint64_t kMmio32Size = 0x2000'0000;
constexpr std::uint64_t kEcamBase = 0xE000'0000;
constexpr std::uint64_t kEcamSize = 0x10'0000;
constexpr std::uint64_t kMmio64Alignment = kGiB;
constexpr std::uint64_t kMmio64MaxSize = 256 * kGiB;
constexpr std::uint64_t kMmio64MinSize = kGiB;

constexpr std::uint32_t kIoapicAddress = 0xFEC0'0000;
constexpr std::uint32_t kLocalApicAddress = 0xFEE0'0000;
constexpr std::uint64_t kInterruptControllers = 0xFEC0'0000;  // and KVM's own pages
constexpr std::uint64_t kInterruptControllersSize = 0x0140'0000;
constexpr std::uint32_t kIoapicPins = 24;
constexpr std::uint64_t kIdentityMapAddress = 0xFEFF'C000;
constexpr std::uint64_t kTssAddress = 0xFEFF'D000;

constexpr std::uint16_t kUartPort = 0x3F8;
constexpr std::uint16_t kPowerPort = 0x600;
constexpr std::uint16_t kConfigPorts = 0xCF8;
constexpr std::uint64_t kPioBase = 0x1000;
constexpr std::uint64_t kPioSize = 0xF000;

constexpr std::uint32_t kUartGsi = 4;
constexpr std::uint32_t kPowerButtonGsi = 5;
constexpr std::uint32_t kIntxGsiBase = 16;
constexpr std::uint32_t kIntxSlots = 8;

}  // namespace outboard::vmm::x86_64
