// PCI bus 0 of the machine: its functions, and the two ways a guest reaches their config space,
// ECAM (PCIe 4.0 §7.2.2) and the ports 0xCF8..0xCFF (PCI 3.0 §3.2.2.3.2).
#pragma once

#include <array>
#include <cstdint>

#include "devices/bus.h"
#include "devices/config_ports.h"
#include "devices/ecam.h"
#include "devices/host_bridge.h"
#include "devices/pci_function.h"

namespace outboard::devices {

// Owns the host bridge at 00:00.0; the other functions belong to the caller and outlive the host.
// add() before the vCPUs run; the bus devices serve any vCPU thread.
class PciHost final {
 public:
  static constexpr std::uint32_t kSlots = 32;
  static constexpr std::uint64_t kEcamSize = 1 << 20;   // bus 0 only
  static constexpr std::uint64_t kConfigPortsSize = 8;  // 0xCF8..0xCFF

  PciHost();
  PciHost(const PciHost&) = delete;
  PciHost& operator=(const PciHost&) = delete;

  // Function 0 of device slot, 1..31; slot 0 is the host bridge.
  void add(std::uint32_t slot, PciFunction& function);

  // Map at the ECAM base, kEcamSize bytes, Space::mmio.
  BusDevice& ecam() { return ecam_; }
  // Map at port 0xCF8, kConfigPortsSize bytes, Space::pio.
  BusDevice& config_ports() { return config_ports_; }

  // Machine reset: every function, and the address latch of the ports. vCPUs are stopped.
  void reset();

 private:
  HostBridge bridge_;
  PciSlots slots_;  // written by add() before the vCPUs run, read by any vCPU
  Ecam ecam_{slots_};
  ConfigPorts config_ports_{slots_};
};

}  // namespace outboard::devices
