// A flattened device tree (Devicetree Specification 0.4) of the machine: cpus, memory, chosen and
// the PCI host. The seed of the second architecture; on x86-64 it is only what `outboard dump fdt`
// writes. Pure: a description in, bytes out.
#pragma once

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
  struct Pci {
    std::uint64_t ecam_base = 0;  // 1 MiB per bus
    std::uint8_t last_bus = 0;
    Window pio;     // ports 0 … size-1 of the bus seen at CPU address base; none on x86
    Window mmio32;  // identity-mapped, below 4 GiB
    Window mmio64;  // identity-mapped
  };

  std::string model = "outboard";
  std::vector<std::string> compatible{"linux,dummy-virt"};
  std::string cpu_compatible;          // of every CPU node, as "arm,armv8"
  std::vector<std::uint64_t> cpu_ids;  // `reg` of each CPU: MPIDR affinity or APIC id
  std::vector<MemoryRange> memory;     // only Kind::ram becomes memory nodes
  std::string command_line;            // chosen/bootargs
  std::optional<Initrd> initrd;        // chosen/linux,initrd-start and -end
  std::optional<Pci> pci;
};

[[nodiscard]] Result<std::vector<std::byte>> build_fdt(const FdtDescription& description);

}  // namespace outboard::boot
