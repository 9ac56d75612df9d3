// One PCI function as the host bridge sees it.
#pragma once

#include <cstdint>

namespace outboard::devices {

class PciFunction {
 public:
  virtual ~PciFunction() = default;

  // reg is the byte offset 0..4095, a multiple of size; size is 1, 2 or 4. Called on vCPU threads,
  // several at once. Registers that do not exist read 0; the unused high bytes of the result are 0.
  virtual std::uint32_t config_read(std::uint32_t reg, std::uint32_t size) = 0;
  virtual void config_write(std::uint32_t reg, std::uint32_t size, std::uint32_t value) = 0;

  // Machine reset: back to the state before the guest's first instruction. vCPUs are stopped.
  virtual void reset() = 0;
};

}  // namespace outboard::devices
