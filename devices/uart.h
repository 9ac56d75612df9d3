// A 16550A serial port: 8 byte-wide registers, 16-byte FIFOs in both directions, interrupts, modem
// control with loopback. Register layout and names as in the PC16550D data sheet, §8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <span>

#include "devices/bus.h"
#include "devices/interrupts.h"

namespace outboard::devices {

// Where the guest's output goes. write() runs on vCPU threads, one at a time, with the UART's lock
// held: it must not block nor call the UART. It returns how many bytes it took; when it took fewer,
// it calls Uart16550::output_ready() once it can take more.
class ConsoleOutput {
 public:
  virtual ~ConsoleOutput() = default;
  virtual std::size_t write(std::span<const std::byte> data) = 0;
};

// Map kSize bytes, in either space. Every member may be called from any thread.
class Uart16550 final : public BusDevice {
 public:
  static constexpr std::uint64_t kSize = 8;
  static constexpr std::size_t kFifoSize = 16;
  // Bytes kept for a guest that writes on although THRE is clear (Linux's printk does after 10 ms).
  static constexpr std::size_t kOverrunSize = 64 * 1024;

  Uart16550(InterruptLine& line, ConsoleOutput& output);

  void read(std::uint64_t offset, std::span<std::byte> data) override;
  void write(std::uint64_t offset, std::span<const std::byte> data) override;

  // Input for the guest. Returns how many leading bytes were accepted, 0 when the receive FIFO is
  // full, the guest holds RTS or DTR off (once it has ever raised them), or the port is in
  // loopback. Keep the rest and offer it again when the ready handler is called.
  std::size_t receive(std::span<const std::byte> data);

  // Called, with no lock held and from a vCPU thread, when receive() accepts again after it had
  // accepted fewer bytes than offered. Typically wakes the event loop. Set it before the vCPUs run.
  void set_ready_handler(std::function<void()> handler);

  // The output takes bytes again.
  void output_ready();

  // A break condition on the input line: LSR.BI with a zero byte.
  void receive_break();

  // Power-on state; bytes in both FIFOs are dropped, bytes waiting for the output are kept.
  void reset();

  // Output bytes lost because the guest wrote on for kOverrunSize bytes with THRE clear.
  std::uint64_t lost_output() const;

 private:
  struct Received {
    std::uint8_t value;
    std::uint8_t error;  // LSR bits that belong to this byte
  };

  std::uint8_t read_register(std::uint64_t offset);
  void write_register(std::uint64_t offset, std::uint8_t value);
  std::uint8_t read_received();
  std::uint8_t read_line_status();
  std::uint8_t read_modem_status();
  std::uint8_t read_interrupt_identification();
  std::uint8_t pending_interrupt() const;
  void write_modem_control(std::uint8_t value);
  void write_line_control(std::uint8_t value);
  void write_fifo_control(std::uint8_t value);
  void write_interrupt_enable(std::uint8_t value);
  void transmit(std::uint8_t value);
  void drain_output();
  void push_received(Received received);
  void update_line();
  std::uint8_t modem_lines() const;
  bool fifo_enabled() const;
  bool loopback() const;
  bool accepts_input() const;
  std::size_t receive_capacity() const;
  bool ready_owed();

  mutable std::mutex mutex_;  // guards everything below; held while line_ and output_ are called
  InterruptLine& line_;
  ConsoleOutput& output_;
  std::function<void()> ready_handler_;  // set before the vCPUs run, called without the lock
  std::deque<Received> received_;
  std::deque<std::byte> transmitting_;  // written by the guest, not yet taken by the output
  std::uint64_t lost_output_ = 0;
  std::uint16_t divisor_ = 0;
  std::uint8_t interrupt_enable_ = 0;
  std::uint8_t fifo_control_ = 0;
  std::uint8_t line_control_ = 0;
  std::uint8_t modem_control_ = 0;
  std::uint8_t modem_delta_ = 0;  // MSR bits 3:0, cleared by a read of MSR
  std::uint8_t scratch_ = 0;
  std::uint8_t flow_lines_ = 0;    // of RTS and DTR, those the guest has ever raised
  bool overrun_ = false;           // LSR.OE
  bool transmit_pending_ = false;  // THRE interrupt raised and not yet read from IIR
  bool input_refused_ = false;     // the ready handler is owed a call
  bool level_ = false;             // what line_ was last set to
};

}  // namespace outboard::devices
