#include <doctest/doctest.h>

#include "devices/power.h"
#include "tests/unit/devices_fakes.h"

using namespace outboard::devices;

namespace {

struct Block {
  std::vector<PowerEvent> events;
  PowerBlock block{[this](PowerEvent event) { events.push_back(event); }};
  void out(std::uint64_t offset, int value) {
    const auto byte = static_cast<std::byte>(value);
    block.write(offset, {&byte, 1});
  }
};

}  // namespace

TEST_CASE("ACPI 6.3 §4.8.3.7 SLP_EN with SLP_TYP 5 powers off, nothing else does") {
  Block block;
  block.out(0, 0x14);         // the type without the enable bit
  block.out(0, 0x20);         // enable, type 0
  block.out(0, 0x20 | 0x0c);  // enable, type 3
  CHECK(block.events.empty());
  block.out(0, 0x20 | 0x14);
  REQUIRE(block.events.size() == 1);
  CHECK(block.events[0].kind == PowerEvent::Kind::power_off);
}

TEST_CASE("ACPI 6.3 §4.8.3.6 the reset register resets on its value only") {
  Block block;
  block.out(2, 0);
  block.out(2, 2);
  CHECK(block.events.empty());
  block.out(2, 1);
  REQUIRE(block.events.size() == 1);
  CHECK(block.events[0].kind == PowerEvent::Kind::reset);
}

TEST_CASE("a byte written to the mark port is a boot mark; reads are zero") {
  Block block;
  block.out(6, 0x42);
  REQUIRE(block.events.size() == 1);
  CHECK(block.events[0].kind == PowerEvent::Kind::boot_mark);
  CHECK(block.events[0].value == 0x42);
  std::byte bytes[8];
  block.block.read(0, bytes);
  for (const std::byte byte : bytes) CHECK(byte == std::byte{0});
}

TEST_CASE("each press of the power button is one edge") {
  FakeLine line;
  PowerButton button(line);
  button.press();
  button.press();
  CHECK(line.edges == 2);
  CHECK_FALSE(line.level());
}
