#pragma once

// What every machine has: the serial console, the power block with its button, and the PCI host
// bridge, each at its fixed place. Owned by the machine; made before the vCPUs run, destroyed after
// they have stopped.

#include <functional>

#include "devices/pci_host.h"
#include "devices/power.h"
#include "devices/uart.h"
#include "vmm/board.h"
#include "vmm/console.h"
#include "vmm/interrupts.h"
#include "vmm/marks.h"

namespace outboard::vmm {

class FixedDevices {
 public:
  // Puts them on the buses of `board`, which is powered on. `power` is called on the vCPU thread
  // that made the access.
  FixedDevices(Board& board, ConsoleBackend& console, Marks& marks,
               std::function<void(devices::PowerEvent)> power);
  FixedDevices(const FixedDevices&) = delete;
  FixedDevices& operator=(const FixedDevices&) = delete;

  // Connects the console's input and its escape sequences. Main thread, before the vCPUs run.
  void start_console(devices::EventLoop& loop, std::function<void(ConsoleCommand)> command);

  // Presses the power button. Any thread.
  void press_power_button() { button_.press(); }

  // Machine reset: every PCI function with its DEVICE_RESET, then the console. No vCPU runs.
  void reset();

  [[nodiscard]] devices::PciHost& pci() { return pci_; }
  // Bytes of console output that were lost. Any thread.
  [[nodiscard]] std::uint64_t lost_output() const { return uart_.lost_output(); }

 private:
  // The console as the UART sees it: the first byte is worth a mark.
  class MarkedOutput final : public devices::ConsoleOutput {
   public:
    MarkedOutput(devices::ConsoleOutput& output, Marks& marks) : output_(output), marks_(marks) {}
    std::size_t write(std::span<const std::byte> data) override {
      marks_.stamp(Mark::first_console_byte);
      return output_.write(data);
    }

   private:
    devices::ConsoleOutput& output_;
    Marks& marks_;
  };

  ConsoleBackend& console_;
  MarkedOutput output_;
  GsiLine uart_line_;
  GsiLine power_line_;
  devices::Uart16550 uart_;
  devices::PowerBlock power_;
  devices::PowerButton button_;
  devices::PciHost pci_;
};

}  // namespace outboard::vmm
