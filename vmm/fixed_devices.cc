#include "vmm/fixed_devices.h"

#include <utility>

#include "vmm/arch.h"

namespace outboard::vmm {

FixedDevices::FixedDevices(Board& board, ConsoleBackend& console, Marks& marks,
                           std::function<void(devices::PowerEvent)> power)
    : console_(console),
      output_(console, marks),
      uart_line_(board.vm(), arch::wiring().uart_gsi),
      power_line_(board.vm(), arch::wiring().power_button_gsi),
      uart_(uart_line_, output_),
      power_(std::move(power)),
      button_(power_line_) {
  using devices::Priority;
  const arch::Wiring wiring = arch::wiring();
  Bus& bus = board.bus();
  const auto fix = [&bus](arch::Place at, std::uint64_t size, devices::BusDevice& device) {
    bus.map(at.space, at.base, size, device, Priority::fixed);
  };
  fix(wiring.uart, devices::Uart16550::kSize, uart_);
  fix(wiring.power, devices::PowerBlock::kSize, power_);
  if (wiring.config_ports) {
    fix(*wiring.config_ports, devices::PciHost::kConfigPortsSize, pci_.config_ports());
  }
  bus.map(devices::Space::mmio, board.layout().ecam_base, devices::PciHost::kEcamSize, pci_.ecam(),
          Priority::fixed);
}

void FixedDevices::start_console(devices::EventLoop& loop,
                                 std::function<void(ConsoleCommand)> command) {
  uart_.set_ready_handler([this] { console_.input_ready(); });
  console_.start(
      loop, [this](std::span<const std::byte> input) { return uart_.receive(input); },
      [this] { uart_.output_ready(); }, std::move(command));
}

void FixedDevices::reset() {
  pci_.reset();
  uart_.reset();
}

}  // namespace outboard::vmm
