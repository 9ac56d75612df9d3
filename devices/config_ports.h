// CONFIG_ADDRESS at 0xCF8 and CONFIG_DATA at 0xCFC (PCI 3.0 §3.2.2.3.2).
#pragma once

#include <atomic>
#include <cstdint>

#include "devices/bus.h"
#include "devices/pci_slots.h"

namespace outboard::devices {

// Serves any vCPU thread; the latch is one word, as on hardware: guests serialise the pair
// themselves.
class ConfigPorts final : public BusDevice {
 public:
  explicit ConfigPorts(const PciSlots& slots) : slots_(slots) {}

  void read(std::uint64_t offset, std::span<std::byte> data) override;
  void write(std::uint64_t offset, std::span<const std::byte> data) override;
  void reset() { address_.store(0, std::memory_order_relaxed); }

 private:
  const PciSlots& slots_;
  std::atomic<std::uint32_t> address_{0};  // any vCPU; bit 31 enables CONFIG_DATA
};

}  // namespace outboard::devices
