// The messages by which interrupts are set up in the device. An interface, so that the interrupt
// state machines are tested without a server.
#pragma once

#include <cstdint>
#include <span>

#include "devices/result.h"

namespace outboard::devices {

// index is the vfio-user interrupt index: 0 INTx, 1 MSI, 2 MSI-X. Every member waits for the
// server.
class DeviceIrqs {
 public:
  virtual ~DeviceIrqs() = default;
  // On failure none of these vectors is armed.
  virtual Result<void> arm(std::uint32_t index, std::uint32_t start,
                           std::span<const int> eventfds) = 0;
  virtual Result<void> disable(std::uint32_t index) = 0;
  virtual Result<void> mask(std::uint32_t index, std::uint32_t start, std::uint32_t count) = 0;
  virtual Result<void> unmask(std::uint32_t index, std::uint32_t start, std::uint32_t count) = 0;
};

}  // namespace outboard::devices
