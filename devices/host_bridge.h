// The host bridge at 00:00.0: an identity and nothing else.
#pragma once

#include <mutex>

#include "devices/config_space.h"
#include "devices/pci_function.h"

namespace outboard::devices {

class HostBridge final : public PciFunction {
 public:
  HostBridge();

  std::uint32_t config_read(std::uint32_t reg, std::uint32_t size) override;
  void config_write(std::uint32_t reg, std::uint32_t size, std::uint32_t value) override;
  void reset() override;

 private:
  std::mutex mutex_;    // a leaf: nothing else is locked or called under it
  ConfigSpace config_;  // any vCPU, under mutex_
};

}  // namespace outboard::devices
