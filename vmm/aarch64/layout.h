#pragma once

// The arm64 machine's address map and GSIs. Everything that has a fixed place is here and nowhere
// else. Pure, and built and tested on every host.
//
//   guest-physical                        what
//   0x0'0800'0000 .. 0x0'0800'FFFF        GICv3 distributor
//   0x0'0808'0000 .. 0x0'0809'FFFF        GICv3 ITS
//   0x0'080A'0000 .. 0x0'0889'FFFF        GICv3 redistributors, 128 KiB a vCPU, 64 at most
//   0x0'0900'0000                         UART
//   0x0'0901'0000                         power block (Linux uses PSCI; here for boot marks)
//   0x0'0B00'0000 .. 0x0'0B00'FFFF        ports 0 .. 0xFFFF of the PCI bus; I/O BARs from 0x1000 on
//   0x0'0C00'0000 .. 0x0'0C0F'FFFF        ECAM of bus 0
//   0x0'1000'0000 .. 0x0'3FFF'FFFF        32-bit PCI window
//   0x0'4000'0000 .. end                  RAM: the kernel, the device tree, the initrd
//   end, 1 GiB aligned, from 4 GiB up     64-bit PCI window, at most 256 GiB
//
//   GSI (SPI of that number)              what
//   1                                     UART, level
//   2                                     power key, edge
//   16 .. 23                              INTA of PCI slots 1 .. 8, level, never shared
//   32 and up                             message-signalled, by the ITS

#include <cstdint>
#include <optional>
#include <vector>

#include "vmm/arch.h"
#include "vmm/machine_config.h"

namespace outboard::vmm::aarch64 {

constexpr std::uint64_t kDistributor = 0x0800'0000;
constexpr std::uint64_t kDistributorSize = 0x1'0000;
constexpr std::uint64_t kIts = 0x0808'0000;
constexpr std::uint64_t kItsSize = 0x2'0000;
constexpr std::uint64_t kRedistributors = 0x080A'0000;
constexpr std::uint64_t kRedistributorSize = 0x2'0000;  // of one vCPU

constexpr std::uint64_t kUart = 0x0900'0000;
constexpr std::uint64_t kUartSize = 0x1000;  // of its node; its registers are the first 8 bytes
constexpr std::uint64_t kPower = 0x0901'0000;
constexpr std::uint64_t kPortWindow = 0x0B00'0000;
constexpr std::uint64_t kPortWindowSize = 0x1'0000;
constexpr std::uint64_t kFirstIoBar = 0x1000;
constexpr std::uint64_t kEcam = 0x0C00'0000;
constexpr std::uint64_t kEcamSize = 0x10'0000;

constexpr std::uint64_t kMmio32 = 0x1000'0000;
constexpr std::uint64_t kMmio32Size = 0x3000'0000;
constexpr std::uint64_t kRam = 0x4000'0000;
constexpr std::uint64_t kMmio64Floor = 4 * kGiB;
constexpr std::uint64_t kMmio64Alignment = kGiB;
constexpr std::uint64_t kMmio64MaxSize = 256 * kGiB;
constexpr std::uint64_t kMmio64MinSize = kGiB;

constexpr std::uint32_t kUartGsi = 1;
constexpr std::uint32_t kPowerKeyGsi = 2;
constexpr std::uint32_t kIntxGsiBase = 16;
constexpr std::uint32_t kIntxSlots = 8;
constexpr std::uint32_t kPins = 32;  // SPIs of the GIC

// INTIDs 0 .. 31 are private to a CPU (GICv3 architecture, §2.2.1); SPI n is INTID 32 + n.
constexpr std::uint32_t kPrivateInterrupts = 32;
constexpr std::uint32_t kInterrupts = kPrivateInterrupts + kPins;  // what the GIC is made with

// The 40 bits that every arm64 KVM can give, or fewer where the host has fewer.
constexpr unsigned kMostAddressBits = 40;

[[nodiscard]] std::vector<RamWindow> ram_windows(std::uint64_t memory);
// Errors (ExitStatus::memory): more memory than the guest can address.
[[nodiscard]] Result<arch::MemoryLayout> memory_layout(std::uint64_t memory, unsigned address_bits);
[[nodiscard]] arch::Wiring wiring();
[[nodiscard]] std::optional<std::uint32_t> intx_gsi(std::uint32_t slot);
[[nodiscard]] std::vector<kvm_irq_routing_entry> fixed_routes();

// The affinity fields of MPIDR_EL1 that KVM gives vCPU `index`: 16 vCPUs a cluster.
[[nodiscard]] constexpr std::uint64_t affinity(std::uint32_t index) {
  return (index & 0xf) | (std::uint64_t{index} >> 4 & 0xff) << 8;
}

}  // namespace outboard::vmm::aarch64
