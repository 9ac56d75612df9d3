#include <cstdio>

#include <doctest/doctest.h>

#include "tests/unit/devices_test_device.h"

using namespace outboard;
using namespace outboard::devices;

namespace {

// What Linux does with a function from its discovery to the first use of MSI-X by a driver.
class LinuxGuest {
 public:
  explicit LinuxGuest(Attached& machine) : machine_(machine) {}

  void discover() {
    read(pci::kVendorId, 4);
    read(pci::kHeaderType, 1);
    read(pci::kRevisionId, 4);
    for (std::uint32_t at = read(pci::kCapabilities, 1); at != 0; at = read(at + 1, 1)) read(at, 2);
    read(kExpressCap + 2, 2);
    read(kExpressCap + 4, 4);
    read(0x100, 4);
    read(pci::kInterruptPin, 1);
    read(pci::kInterruptLine, 1);
    for (std::uint32_t reg = 0x10; reg <= 0x24; reg += 4) size_bar(reg, 0xffffffff);
    size_bar(pci::kRomBar, 0xfffff800);
    read(pci::kSubsystemVendorId, 2);
    read(pci::kSubsystemId, 2);
    for (const std::uint32_t control : {kMsiCap + 2, kMsixCap + 2}) {
      const std::uint32_t value = read(control, 2);
      if ((value & (control == kMsixCap + 2 ? 0x8000U : 1U)) != 0) write(control, 2, 0);
    }
    read(kPmCap + 2, 2);
    read(kPmCap + 4, 2);
  }

  void probe() {
    command(pci::command::kMemory);
    command(pci::command::kMaster);
    const std::uint32_t control = read(kMsixCap + 2, 2);
    read(kMsixCap + 4, 4);
    write(kMsixCap + 2, 2, control | 0xc000);
    const std::uint64_t table = machine_.bar(0) + kTable;
    for (std::uint32_t i = 0; i <= (control & 0x7ff); ++i)
      machine_.bus.write(table + i * 16 + 12, 4, 1);
    for (std::uint32_t i = 0; i < 3; ++i) {
      machine_.bus.write(table + i * 16, 4, 0xfee00000);
      machine_.bus.write(table + i * 16 + 4, 4, 0);
      machine_.bus.write(table + i * 16 + 8, 4, 0x4020 + i);
    }
    command(pci::command::kIntxDisable);
    write(kMsixCap + 2, 2, control | 0x8000);
    for (std::uint32_t i = 0; i < 3; ++i) machine_.bus.write(table + i * 16 + 12, 4, 0);
  }

 private:
  std::uint32_t read(std::uint32_t reg, std::uint32_t size) { return machine_.cfg(reg, size); }
  void write(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
    machine_.cfg(reg, size, value);
  }
  void command(std::uint32_t bits) { write(pci::kCommand, 2, read(pci::kCommand, 2) | bits); }
  void size_bar(std::uint32_t reg, std::uint32_t ones) {
    const std::uint32_t old_command = read(pci::kCommand, 2);
    if ((old_command & 3) != 0) write(pci::kCommand, 2, old_command & ~3U);
    const std::uint32_t value = read(reg, 4);
    write(reg, 4, ones);
    read(reg, 4);
    write(reg, 4, value);
    if ((old_command & 3) != 0) write(pci::kCommand, 2, old_command);
  }

  Attached& machine_;
};

std::string dump(Attached& machine, std::uint32_t from, std::uint32_t to) {
  std::string out;
  char text[16];
  for (std::uint32_t reg = from; reg < to; ++reg) {
    if (reg % 16 == 0) {
      std::snprintf(text, sizeof text, "%02x:", reg);
      out += text;
    }
    std::snprintf(text, sizeof text, " %02x", machine.cfg(reg, 1));
    out += text;
    if (reg % 16 == 15) out += '\n';
  }
  return out;
}

// Identity; COMMAND with memory, master and INTx off; BARs where the machine placed them; PM in D0;
// MSI-X enabled with 8 vectors; Device Control as the server had it; MSI off with 4 vectors.
constexpr char kGolden[] =
    "00: 58 4e 01 00 06 04 10 00 01 02 08 01 00 00 00 00\n"
    "10: 04 00 00 00 10 00 00 00 01 c0 00 00 00 00 00 c0\n"
    "20: 00 00 00 00 00 00 00 00 00 00 00 00 78 56 34 12\n"
    "30: 00 40 00 c0 40 00 00 00 00 00 00 00 00 01 00 00\n"
    "40: 01 50 03 00 00 00 00 00 00 00 00 00 00 00 00 00\n"
    "50: 11 60 07 80 00 20 00 00 00 30 00 00 00 00 00 00\n"
    "60: 10 a0 02 00 00 80 00 10 10 28 00 00 00 00 00 00\n"
    "70: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n"
    "80: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n"
    "90: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n"
    "a0: 05 c0 84 01 00 00 00 00 00 00 00 00 00 00 00 00\n"
    "b0: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n"
    "c0: 09 00 10 5a 00 00 00 00 00 00 00 00 00 00 00 00\n"
    "d0: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n";

}  // namespace

TEST_CASE("decision 5: the messages of a Linux enumeration and probe, byte for byte") {
  Attached machine;
  machine.attach();
  LinuxGuest guest(machine);
  guest.discover();
  CHECK(machine.messages().empty());
  guest.discover();  // a rescan with decoding on costs nothing either
  guest.probe();
  CHECK(machine.messages() == std::vector<std::string>{"irqs 0", "w7 4/2=2", "w7 4/2=6", "irqs 0",
                                                       "w7 52/2=c007", "w7 4/2=406", "irqs 2",
                                                       "w7 52/2=8007"});
  CHECK(machine.msi.routing_calls == 3);
  guest.discover();
  CHECK(machine.messages() == std::vector<std::string>{"w7 52/2=7", "irqs 2"});
}

TEST_CASE("golden: the config space of the guest after enumeration and probe") {
  Attached machine;
  machine.attach();
  LinuxGuest guest(machine);
  guest.discover();
  guest.probe();
  CHECK(dump(machine, 0, 0xe0) == kGolden);
}
