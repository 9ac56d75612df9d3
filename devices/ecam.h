// The enhanced configuration access mechanism of bus 0 (PCIe 4.0 §7.2.2): offset 19:15 device,
// 14:12 function, 11:0 register.
#pragma once

#include "devices/bus.h"
#include "devices/pci_slots.h"

namespace outboard::devices {

// Stateless; serves any vCPU thread. Accesses that are not naturally aligned are cut into those
// that are; 8-byte accesses become two of 4.
class Ecam final : public BusDevice {
 public:
  explicit Ecam(const PciSlots& slots) : slots_(slots) {}

  void read(std::uint64_t offset, std::span<std::byte> data) override;
  void write(std::uint64_t offset, std::span<const std::byte> data) override;

 private:
  const PciSlots& slots_;
};

}  // namespace outboard::devices
