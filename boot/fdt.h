// A flattened device tree (Devicetree Specification 0.4) of the machine: cpus, memory, chosen, the
// PCI host, and what an arm64 machine has beside them. Pure: a description in, bytes out.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "boot/memory_map.h"
#include "boot/result.h"

namespace outboard::boot {

struct FdtDescription {
  struct Window {
    std::uint64_t base = 0;  // CPU-physical
    std::uint64_t size = 0;  // bytes; 0: no such window
  };
  struct Initrd {
    std::uint64_t base = 0;
    std::uint64_t size = 0;
  };
  struct PciIrq {
    std::uint8_t slot = 0;
    std::uint8_t pin = 0;   // 0 = INTA … 3 = INTD
    std::uint32_t spi = 0;  // level-triggered, active high
  };
  struct Pci {
    std::uint64_t ecam_base = 0;  // 1 MiB per bus
    std::uint8_t last_bus = 0;
    Window pio;     // ports 0 … size-1 of the bus seen at CPU address base; none on x86
    Window mmio32;  // identity-mapped, below 4 GiB
    Window mmio64;  // identity-mapped
    std::vector<PciIrq> irqs{};  // with `arm` only
  };
  // Shared peripheral interrupts are counted from 0, as in the binding of the GIC.
  struct Uart {  // a 16550A with registers of one byte, one beside the other
    Window registers;
    std::uint32_t spi = 0;            // level-triggered, active high
    std::uint32_t clock = 1'843'200;  // Hz
  };
  // GICv3 with an ITS, which translates the PCI host's messages by requester ID; PSCI by HVC; the
  // architected timer.
  struct Arm {
    Window distributor;
    Window redistributors;
    Window its;
    std::optional<Uart> uart;                    // stdout-path
    std::optional<std::uint32_t> power_key_spi;  // one edge is one press and release of KEY_POWER
  };
  struct Seeds {
    std::array<std::byte, 64> rng{};
    std::uint64_t kaslr = 0;
  };

  std::string model = "outboard";
  std::vector<std::string> compatible{"linux,dummy-virt"};
  std::string cpu_compatible;          // of every CPU node, as "arm,armv8"
  std::vector<std::uint64_t> cpu_ids;  // `reg` of each CPU: MPIDR affinity or APIC id
  std::vector<MemoryRange> memory;     // only Kind::ram becomes memory nodes
  std::string command_line;            // chosen/bootargs
  std::optional<Initrd> initrd;        // chosen/linux,initrd-start and -end
  std::optional<Seeds> seeds{};        // chosen/rng-seed and kaslr-seed
  std::optional<Pci> pci;
  std::optional<Arm> arm{};
};

[[nodiscard]] Result<std::vector<std::byte>> build_fdt(const FdtDescription& description);

}  // namespace outboard::boot
