// The power block: ACPI sleep control and status (ACPI 6.3 §4.8.3.7), the reset register
// (§4.8.3.6), a one-byte port where guest user space leaves boot marks, and the power button.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>

#include "devices/bus.h"
#include "devices/interrupts.h"

namespace outboard::devices {

// What the guest asked for.
struct PowerEvent {
  enum class Kind { power_off, reset, boot_mark };
  Kind kind;
  std::uint8_t value = 0;  // boot_mark: the byte written
};

// Map kSize bytes at the place of the sleep control register, in either space. A guest with PSCI
// uses the boot mark alone. The handler runs on the vCPU thread that made the access, with no lock
// held; it must not wait for that vCPU.
class PowerBlock final : public BusDevice {
 public:
  static constexpr std::uint64_t kSleepControl = 0;  // 1 byte: SLP_EN bit 5, SLP_TYP bits 4:2
  static constexpr std::uint64_t kSleepStatus = 1;   // 1 byte: WAK_STS bit 7, write 1 to clear
  static constexpr std::uint64_t kReset = 2;         // 1 byte: kResetValue resets the machine
  static constexpr std::uint64_t kBootMark = 6;      // 1 byte, write only
  static constexpr std::uint64_t kSize = 8;
  static constexpr std::uint8_t kSleepTypeOff = 5;  // the \_S5 package of the DSDT
  static constexpr std::uint8_t kResetValue = 1;

  explicit PowerBlock(std::function<void(PowerEvent)> handler);

  void read(std::uint64_t offset, std::span<std::byte> data) override;
  void write(std::uint64_t offset, std::span<const std::byte> data) override;

 private:
  std::function<void(PowerEvent)> handler_;  // set once, called by any vCPU
};

// The line of the generic event device whose _EVT method notifies the power button, or of a device
// tree's power key. press() may be called from any thread; each call is one edge.
class PowerButton final {
 public:
  explicit PowerButton(InterruptLine& line) : line_(line) {}
  void press();

 private:
  std::mutex mutex_;  // makes the two halves of an edge one step
  InterruptLine& line_;
};

}  // namespace outboard::devices
