#include "devices/uart.h"

#include <algorithm>
#include <utility>

namespace outboard::devices {
namespace {

// Registers by offset (PC16550D §8.0); the divisor latch replaces 0 and 1 while LCR.DLAB is set.
constexpr std::uint64_t kData = 0;             // RBR (read), THR (write)
constexpr std::uint64_t kInterruptEnable = 1;  // IER
constexpr std::uint64_t kInterruptId = 2;      // IIR (read), FCR (write)
constexpr std::uint64_t kLineControl = 3;      // LCR
constexpr std::uint64_t kModemControl = 4;     // MCR
constexpr std::uint64_t kLineStatus = 5;       // LSR
constexpr std::uint64_t kModemStatus = 6;      // MSR
constexpr std::uint64_t kScratch = 7;          // SCR

// IER, §8.6
constexpr std::uint8_t kEnableReceived = 0x01;
constexpr std::uint8_t kEnableTransmit = 0x02;
constexpr std::uint8_t kEnableLineStatus = 0x04;
constexpr std::uint8_t kEnableModemStatus = 0x08;
constexpr std::uint8_t kEnableAll = 0x0f;

// IIR, §8.5, highest priority first
constexpr std::uint8_t kPendingLineStatus = 0x06;
constexpr std::uint8_t kPendingReceived = 0x04;
constexpr std::uint8_t kPendingTimeout = 0x0c;
constexpr std::uint8_t kPendingTransmit = 0x02;
constexpr std::uint8_t kPendingModemStatus = 0x00;
constexpr std::uint8_t kPendingNone = 0x01;
constexpr std::uint8_t kFifosEnabled = 0xc0;

// FCR, §8.4
constexpr std::uint8_t kFifoEnable = 0x01;
constexpr std::uint8_t kFifoClearReceive = 0x02;
constexpr std::uint8_t kFifoTrigger = 0xc0;

// LCR, §8.1
constexpr std::uint8_t kBreakControl = 0x40;
constexpr std::uint8_t kDivisorLatch = 0x80;

// MCR, §8.7
constexpr std::uint8_t kDtr = 0x01;
constexpr std::uint8_t kRts = 0x02;
constexpr std::uint8_t kOut1 = 0x04;
constexpr std::uint8_t kOut2 = 0x08;
constexpr std::uint8_t kLoop = 0x10;
constexpr std::uint8_t kModemControlBits = 0x1f;

// LSR, §8.3
constexpr std::uint8_t kDataReady = 0x01;
constexpr std::uint8_t kOverrunError = 0x02;
constexpr std::uint8_t kBreakInterrupt = 0x10;
constexpr std::uint8_t kErrors = 0x1e;
constexpr std::uint8_t kHoldingEmpty = 0x20;
constexpr std::uint8_t kTransmitterEmpty = 0x40;
constexpr std::uint8_t kErrorInFifo = 0x80;

// MSR, §8.8: bits 7:4 the lines, bits 3:0 their changes
constexpr std::uint8_t kCts = 0x10;
constexpr std::uint8_t kDsr = 0x20;
constexpr std::uint8_t kRi = 0x40;
constexpr std::uint8_t kDcd = 0x80;

constexpr std::size_t kTriggerLevels[] = {1, 4, 8, 14};

}  // namespace

Uart16550::Uart16550(InterruptLine& line, ConsoleOutput& output) : line_(line), output_(output) {}

void Uart16550::read(std::uint64_t offset, std::span<std::byte> data) {
  bool ready = false;
  {
    std::lock_guard lock(mutex_);
    for (std::byte& byte : data) byte = std::byte{read_register(offset++)};
    update_line();
    ready = ready_owed();
  }
  if (ready) ready_handler_();
}

void Uart16550::write(std::uint64_t offset, std::span<const std::byte> data) {
  bool ready = false;
  {
    std::lock_guard lock(mutex_);
    for (const std::byte byte : data) write_register(offset++, std::to_integer<std::uint8_t>(byte));
    update_line();
    ready = ready_owed();
  }
  if (ready) ready_handler_();
}

std::size_t Uart16550::receive(std::span<const std::byte> data) {
  std::lock_guard lock(mutex_);
  std::size_t accepted = 0;
  if (accepts_input()) {
    const std::size_t room = receive_capacity() - std::min(receive_capacity(), received_.size());
    accepted = std::min(room, data.size());
    for (const std::byte byte : data.first(accepted)) {
      received_.push_back({std::to_integer<std::uint8_t>(byte), 0});
    }
  }
  if (accepted < data.size()) input_refused_ = true;
  update_line();
  return accepted;
}

void Uart16550::set_ready_handler(std::function<void()> handler) {
  std::lock_guard lock(mutex_);
  ready_handler_ = std::move(handler);
}

void Uart16550::output_ready() {
  std::lock_guard lock(mutex_);
  if (transmitting_.empty()) return;
  drain_output();
  update_line();
}

void Uart16550::receive_break() {
  std::lock_guard lock(mutex_);
  if (!loopback()) push_received({0, kBreakInterrupt});
  update_line();
}

void Uart16550::reset() {
  bool ready = false;
  {
    std::lock_guard lock(mutex_);
    received_.clear();
    interrupt_enable_ = 0;
    fifo_control_ = 0;
    line_control_ = 0;
    modem_control_ = 0;
    modem_delta_ = 0;
    scratch_ = 0;
    divisor_ = 0;
    flow_lines_ = 0;
    overrun_ = false;
    transmit_pending_ = false;
    level_ = false;
    line_.set(false);
    ready = ready_owed();
  }
  if (ready) ready_handler_();
}

std::uint64_t Uart16550::lost_output() const {
  std::lock_guard lock(mutex_);
  return lost_output_;
}

std::uint8_t Uart16550::read_register(std::uint64_t offset) {
  const bool latch = (line_control_ & kDivisorLatch) != 0;
  switch (offset) {
    case kData:
      return latch ? static_cast<std::uint8_t>(divisor_) : read_received();
    case kInterruptEnable:
      return latch ? static_cast<std::uint8_t>(divisor_ >> 8) : interrupt_enable_;
    case kInterruptId:
      return read_interrupt_identification();
    case kLineControl:
      return line_control_;
    case kModemControl:
      return modem_control_;
    case kLineStatus:
      return read_line_status();
    case kModemStatus:
      return read_modem_status();
    case kScratch:
      return scratch_;
    default:
      return 0xff;
  }
}

void Uart16550::write_register(std::uint64_t offset, std::uint8_t value) {
  const bool latch = (line_control_ & kDivisorLatch) != 0;
  switch (offset) {
    case kData:
      if (latch) {
        divisor_ = static_cast<std::uint16_t>((divisor_ & 0xff00) | value);
      } else {
        transmit(value);
      }
      return;
    case kInterruptEnable:
      if (latch) {
        divisor_ = static_cast<std::uint16_t>((divisor_ & 0x00ff) | (value << 8));
      } else {
        write_interrupt_enable(value);
      }
      return;
    case kInterruptId:
      return write_fifo_control(value);
    case kLineControl:
      return write_line_control(value);
    case kModemControl:
      return write_modem_control(value);
    case kScratch:
      scratch_ = value;
      return;
    default:  // LSR and MSR are read only
      return;
  }
}

std::uint8_t Uart16550::read_received() {
  if (received_.empty()) return 0;
  const std::uint8_t value = received_.front().value;
  received_.pop_front();
  return value;
}

std::uint8_t Uart16550::read_line_status() {
  std::uint8_t status = 0;
  if (!received_.empty()) {
    status = static_cast<std::uint8_t>(kDataReady | received_.front().error);
    received_.front().error = 0;
  }
  if (overrun_) status |= kOverrunError;
  overrun_ = false;
  if (transmitting_.empty()) status |= kHoldingEmpty | kTransmitterEmpty;
  const bool more_errors = std::any_of(received_.begin(), received_.end(),
                                       [](const Received& entry) { return entry.error != 0; });
  if (fifo_enabled() && (more_errors || (status & kErrors & ~kOverrunError) != 0)) {
    status |= kErrorInFifo;
  }
  return status;
}

std::uint8_t Uart16550::read_modem_status() {
  return modem_lines() | std::exchange(modem_delta_, std::uint8_t{0});
}

// Reading IIR acknowledges a THRE interrupt, and only when that is the source it shows (§8.5).
std::uint8_t Uart16550::read_interrupt_identification() {
  const std::uint8_t pending = pending_interrupt();
  if (pending == kPendingTransmit) transmit_pending_ = false;
  return pending | (fifo_enabled() ? kFifosEnabled : std::uint8_t{0});
}

std::uint8_t Uart16550::pending_interrupt() const {
  const bool line_error = overrun_ || (!received_.empty() && received_.front().error != 0);
  if ((interrupt_enable_ & kEnableLineStatus) != 0 && line_error) return kPendingLineStatus;
  if ((interrupt_enable_ & kEnableReceived) != 0 && !received_.empty()) {
    const std::size_t trigger = fifo_enabled() ? kTriggerLevels[fifo_control_ >> 6] : 1;
    // The character time-out of a line that is infinitely fast has always passed.
    return received_.size() >= trigger ? kPendingReceived : kPendingTimeout;
  }
  if ((interrupt_enable_ & kEnableTransmit) != 0 && transmit_pending_) return kPendingTransmit;
  if ((interrupt_enable_ & kEnableModemStatus) != 0 && modem_delta_ != 0) {
    return kPendingModemStatus;
  }
  return kPendingNone;
}

void Uart16550::write_interrupt_enable(std::uint8_t value) {
  const bool was_enabled = (interrupt_enable_ & kEnableTransmit) != 0;
  interrupt_enable_ = value & kEnableAll;
  // Enabling the interrupt with an empty holding register raises it at once; drivers rely on it.
  if (!was_enabled && (interrupt_enable_ & kEnableTransmit) != 0 && transmitting_.empty()) {
    transmit_pending_ = true;
  }
}

// The transmit clear bit has nothing to clear: a byte the guest has written is on the wire.
void Uart16550::write_fifo_control(std::uint8_t value) {
  const bool toggled = ((value ^ fifo_control_) & kFifoEnable) != 0;
  if (toggled || (value & kFifoClearReceive) != 0) {
    received_.clear();
  }
  // The other bits stick only while the FIFOs are enabled (§8.4).
  fifo_control_ =
      (value & kFifoEnable) != 0 ? value & (kFifoEnable | kFifoTrigger) : std::uint8_t{0};
}

void Uart16550::write_line_control(std::uint8_t value) {
  const bool break_starts = (value & ~line_control_ & kBreakControl) != 0;
  line_control_ = value;
  if (break_starts && loopback()) push_received({0, kBreakInterrupt});
}

void Uart16550::write_modem_control(std::uint8_t value) {
  const std::uint8_t before = modem_lines();
  modem_control_ = value & kModemControlBits;
  if (!loopback()) flow_lines_ |= modem_control_ & (kRts | kDtr);
  const std::uint8_t after = modem_lines();
  const std::uint8_t changed = before ^ after;
  // CTS, DSR and DCD report both edges, RI only its end (§8.8).
  modem_delta_ |= static_cast<std::uint8_t>((changed & (kCts | kDsr | kDcd)) >> 4);
  modem_delta_ |= static_cast<std::uint8_t>((changed & before & kRi) >> 4);
}

void Uart16550::transmit(std::uint8_t value) {
  transmit_pending_ = false;
  if (loopback()) {
    push_received({value, 0});
    transmit_pending_ = true;
    return;
  }
  if (transmitting_.size() >= kFifoSize + kOverrunSize) {
    ++lost_output_;
    return;
  }
  transmitting_.push_back(std::byte{value});
  drain_output();
}

void Uart16550::drain_output() {
  std::byte chunk[256];
  while (!transmitting_.empty()) {
    const std::size_t size = std::min(sizeof chunk, transmitting_.size());
    std::copy_n(transmitting_.begin(), size, chunk);
    const std::size_t taken = std::min(output_.write({chunk, size}), size);
    transmitting_.erase(transmitting_.begin(),
                        transmitting_.begin() + static_cast<std::ptrdiff_t>(taken));
    if (taken < size) return;
  }
  transmit_pending_ = true;
}

void Uart16550::push_received(Received received) {
  if (received_.size() >= receive_capacity()) {
    overrun_ = true;  // the byte in the shift register is lost, those in the FIFO are not (§8.3)
    return;
  }
  received_.push_back(received);
}

void Uart16550::update_line() {
  const bool level = pending_interrupt() != kPendingNone;
  if (level == level_) return;
  level_ = level;
  line_.set(level);
}

std::uint8_t Uart16550::modem_lines() const {
  if (!loopback()) return kCts | kDsr | kDcd;  // a terminal is there and always ready
  std::uint8_t lines = 0;
  if ((modem_control_ & kRts) != 0) lines |= kCts;
  if ((modem_control_ & kDtr) != 0) lines |= kDsr;
  if ((modem_control_ & kOut1) != 0) lines |= kRi;
  if ((modem_control_ & kOut2) != 0) lines |= kDcd;
  return lines;
}

bool Uart16550::fifo_enabled() const {
  return (fifo_control_ & kFifoEnable) != 0;
}

bool Uart16550::loopback() const {
  return (modem_control_ & kLoop) != 0;
}

bool Uart16550::accepts_input() const {
  return !loopback() && (modem_control_ & flow_lines_) == flow_lines_;
}

std::size_t Uart16550::receive_capacity() const {
  return fifo_enabled() ? kFifoSize : 1;
}

// Waits for an empty FIFO rather than for one free byte: one wake-up of the back end a FIFO.
bool Uart16550::ready_owed() {
  if (!input_refused_ || !ready_handler_ || !accepts_input() || !received_.empty()) return false;
  input_refused_ = false;
  return true;
}

}  // namespace outboard::devices
