#include <atomic>
#include <string>
#include <thread>

#include <doctest/doctest.h>

#include "devices/uart.h"
#include "tests/unit/devices_fakes.h"

using namespace outboard::devices;

namespace {

// Takes at most `room` bytes.
class FakeOutput final : public ConsoleOutput {
 public:
  std::size_t write(std::span<const std::byte> data) override {
    const std::size_t taken = std::min(room, data.size());
    for (const std::byte byte : data.first(taken)) text.push_back(static_cast<char>(byte));
    room -= taken;
    return taken;
  }
  std::size_t room = SIZE_MAX;
  std::string text;
};

struct Port {
  FakeLine line;
  FakeOutput output;
  Uart16550 uart{line, output};

  std::uint8_t in(std::uint64_t reg) {
    std::byte byte{};
    uart.read(reg, {&byte, 1});
    return std::to_integer<std::uint8_t>(byte);
  }
  void out(std::uint64_t reg, int value) {
    const auto byte = static_cast<std::byte>(value);
    uart.write(reg, {&byte, 1});
  }
  std::size_t receive(const std::string& text) {
    return uart.receive(std::as_bytes(std::span(text)));
  }
};

}  // namespace

TEST_CASE("PC16550D §8.3 transmitted bytes reach the console; LSR shows an empty transmitter") {
  Port port;
  CHECK(port.in(5) == 0x60);
  for (const char c : std::string("hello")) port.out(0, c);
  CHECK(port.output.text == "hello");
  CHECK(port.in(5) == 0x60);
}

TEST_CASE("PC16550D §8.2 DLAB switches registers 0 and 1 to the divisor latch") {
  Port port;
  port.out(1, 0x05);
  port.out(3, 0x83);
  port.out(0, 0x34);
  port.out(1, 0x12);
  CHECK(port.in(0) == 0x34);
  CHECK(port.in(1) == 0x12);
  port.out(3, 0x03);
  CHECK(port.in(1) == 0x05);
  CHECK(port.in(3) == 0x03);
  CHECK(port.output.text.empty());
}

TEST_CASE("PC16550D §8.9 the scratch register keeps a byte, reset clears it") {
  Port port;
  port.out(7, 0xa5);
  CHECK(port.in(7) == 0xa5);
  port.uart.reset();
  CHECK(port.in(7) == 0);
}

TEST_CASE("PC16550D §8.5 THRE interrupt: on enable, acknowledged by IIR, raised again by THR") {
  Port port;
  port.out(1, 0x02);
  CHECK(port.line.level());
  CHECK(port.in(2) == 0x02);
  CHECK_FALSE(port.line.level());
  CHECK(port.in(2) == 0x01);
  port.out(0, 'x');
  CHECK(port.line.level());
  CHECK(port.in(2) == 0x02);
}

TEST_CASE("PC16550D §8.5 received data: trigger level, time-out below it, priority over THRE") {
  Port port;
  port.out(2, 0x81);  // FIFOs on, trigger at 8
  port.out(1, 0x03);
  CHECK(port.receive("1234567") == 7);
  CHECK(port.in(2) == 0xcc);  // character time-out
  CHECK(port.receive("8") == 1);
  CHECK(port.in(2) == 0xc4);  // received data available
  for (int i = 0; i < 8; ++i) CHECK(port.in(0) == '1' + i);
  CHECK(port.in(2) == 0xc2);  // the THRE interrupt waited
  CHECK(port.in(2) == 0xc1);
  CHECK_FALSE(port.line.level());
}

TEST_CASE(
    "PC16550D §8.4 without FIFOs one byte is held; the FIFO enable bit clears what is there") {
  Port port;
  CHECK(port.receive("ab") == 1);
  CHECK(port.in(5) == 0x61);
  port.out(2, 0x01);
  CHECK(port.in(5) == 0x60);
  CHECK(port.receive(std::string(20, 'x')) == 16);
  port.out(2, 0x03);
  CHECK(port.in(5) == 0x60);
}

TEST_CASE("PC16550D §8.5 line status interrupt: overrun in loopback, break on the line") {
  Port port;
  port.out(1, 0x04);
  port.out(4, 0x10);
  port.out(0, 'a');
  port.out(0, 'b');  // the holding register is full
  CHECK(port.line.level());
  CHECK(port.in(2) == 0x06);
  CHECK((port.in(5) & 0x03) == 0x03);
  CHECK_FALSE(port.line.level());
  CHECK((port.in(5) & 0x02) == 0);
  CHECK(port.in(0) == 'a');
  port.out(4, 0x00);
  port.uart.receive_break();
  CHECK(port.in(2) == 0x06);
  CHECK((port.in(5) & 0x11) == 0x11);
  CHECK(port.in(0) == 0);
}

TEST_CASE("PC16550D §8.7 loopback: MCR drives MSR, data comes back, the console sees nothing") {
  Port port;
  CHECK(port.in(6) == 0xb0);
  port.out(4, 0x10);
  CHECK(port.in(6) == (0x00 | 0x0b));  // CTS, DSR and DCD fell
  port.out(4, 0x10 | 0x0a);
  CHECK((port.in(6) & 0xf0) == 0x90);
  port.out(4, 0x10 | 0x04);
  CHECK(port.in(6) == (0x40 | 0x09));
  port.out(4, 0x10);
  CHECK(port.in(6) == 0x04);  // the trailing edge of RI
  port.out(2, 0x01);
  for (const char c : std::string("echo")) port.out(0, c);
  std::string back;
  while ((port.in(5) & 1) != 0) back.push_back(static_cast<char>(port.in(0)));
  CHECK(back == "echo");
  CHECK(port.output.text.empty());
}

TEST_CASE("PC16550D §8.8 modem status interrupt") {
  Port port;
  port.out(1, 0x08);
  port.out(4, 0x10);
  CHECK(port.line.level());
  CHECK(port.in(2) == 0x00);
  port.in(6);
  CHECK_FALSE(port.line.level());
  CHECK(port.in(2) == 0x01);
}

TEST_CASE("back-pressure: a slow console keeps THRE clear and loses nothing") {
  Port port;
  port.output.room = 3;
  port.out(1, 0x02);
  port.in(2);
  for (int i = 0; i < 10; ++i) port.out(0, 'a' + i);
  CHECK(port.output.text == "abc");
  CHECK((port.in(5) & 0x60) == 0);
  CHECK_FALSE(port.line.level());
  port.output.room = 4;
  port.uart.output_ready();
  CHECK(port.output.text == "abcdefg");
  CHECK_FALSE(port.line.level());
  port.out(2, 0x07);  // a guest that clears its FIFOs has still sent what it has sent
  port.output.room = SIZE_MAX;
  port.uart.output_ready();
  CHECK(port.output.text == "abcdefghij");
  CHECK(port.in(5) == 0x60);
  CHECK(port.line.level());
  CHECK(port.uart.lost_output() == 0);
}

TEST_CASE("a guest that ignores THRE fills a bounded buffer, and the rest is counted") {
  Port port;
  port.output.room = 0;
  const std::size_t bound = Uart16550::kFifoSize + Uart16550::kOverrunSize;
  for (std::size_t i = 0; i < bound + 5; ++i) port.out(0, 'x');
  CHECK(port.uart.lost_output() == 5);
  port.output.room = SIZE_MAX;
  port.uart.output_ready();
  CHECK(port.output.text.size() == bound);
}

TEST_CASE("flow control: no input while RTS is dropped, the ready handler tells when it goes on") {
  Port port;
  int calls = 0;
  port.uart.set_ready_handler([&] { ++calls; });
  port.out(2, 0x01);
  CHECK(port.receive("x") == 1);  // a guest that never touched MCR gets its input
  port.out(4, 0x0b);
  CHECK(port.receive("y") == 1);
  port.out(4, 0x09);
  CHECK(port.receive("z") == 0);
  CHECK(port.in(0) == 'x');
  CHECK(port.in(0) == 'y');
  CHECK(calls == 0);
  port.out(4, 0x0b);
  CHECK(calls == 1);
  CHECK(port.receive("z") == 1);
  port.out(4, 0x08);  // the tty is closed: DTR drops too
  CHECK(port.receive("w") == 0);
}

TEST_CASE("1 MB of input arrives byte for byte at a guest that reads at its own pace") {
  Port port;
  port.out(2, 0x81);
  port.out(4, 0x0b);
  std::string sent(1 << 20, '\0');
  for (std::size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * 131 + (i >> 8));
  std::size_t at = 0;
  const auto feed = [&] { at += port.uart.receive(std::as_bytes(std::span(sent)).subspan(at)); };
  port.uart.set_ready_handler(feed);
  feed();
  std::string got;
  while (got.size() < sent.size() && (port.in(5) & 1) != 0) {
    got.push_back(static_cast<char>(port.in(0)));
    if (got.size() % 5000 == 0) {  // the guest's buffer is full for a moment
      port.out(4, 0x09);
      feed();
      port.out(4, 0x0b);
    }
  }
  CHECK(got == sent);
}

TEST_CASE("input from the event loop and reads of a vCPU at the same time lose nothing") {
  Port port;
  port.out(2, 0x81);
  std::string sent(16 * 1024, '\0');
  for (std::size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * 7 + (i >> 8));
  std::atomic<bool> ready{true};
  std::atomic<bool> filled{false};
  port.uart.set_ready_handler([&] {
    ready = true;
    ready.notify_one();
  });
  std::thread backend([&] {
    for (std::size_t at = 0; at < sent.size();) {
      ready.wait(false);
      ready = false;
      at += port.uart.receive(std::as_bytes(std::span(sent)).subspan(at));
      filled = true;
      filled.notify_one();
    }
  });
  std::string got;
  while (got.size() < sent.size()) {
    filled.wait(false);
    filled = false;
    while ((port.in(5) & 1) != 0) got.push_back(static_cast<char>(port.in(0)));
  }
  backend.join();
  CHECK(got == sent);
}

TEST_CASE("wide accesses touch consecutive registers; beyond the last they read all ones") {
  Port port;
  std::byte bytes[4];
  port.uart.read(6, bytes);
  CHECK(std::to_integer<int>(bytes[0]) == 0xb0);
  CHECK(std::to_integer<int>(bytes[2]) == 0xff);
}
