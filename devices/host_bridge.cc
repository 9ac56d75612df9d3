#include "devices/host_bridge.h"

#include "devices/pci_ids.h"
#include "devices/pci_registers.h"

namespace outboard::devices {

HostBridge::HostBridge() : config_(ConfigSpace::kConventional) {
  config_.set(pci::kVendorId, 2, pci::kHostBridgeVendor);
  config_.set(pci::kDeviceId, 2, pci::kHostBridgeDevice);
  config_.set(pci::kRevisionId, 4, pci::kClassHostBridge << 8);
  config_.allow_write(pci::kCommand, 2, pci::command::kDecode | pci::command::kMaster);
  config_.allow_write(pci::kInterruptLine, 1, 0xff);
  reset();
}

std::uint32_t HostBridge::config_read(std::uint32_t reg, std::uint32_t size) {
  std::lock_guard lock(mutex_);
  return config_.read(reg, size);
}

void HostBridge::config_write(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
  std::lock_guard lock(mutex_);
  config_.write(reg, size, value);
}

void HostBridge::reset() {
  std::lock_guard lock(mutex_);
  config_.set(pci::kCommand, 2, pci::command::kDecode | pci::command::kMaster);
  config_.set(pci::kInterruptLine, 1, 0);
}

}  // namespace outboard::devices
