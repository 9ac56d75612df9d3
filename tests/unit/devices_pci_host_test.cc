#include <array>

#include <doctest/doctest.h>

#include "devices/pci_host.h"
#include "tests/unit/devices_fakes.h"

using namespace outboard::devices;

namespace {

class FakeFunction final : public PciFunction {
 public:
  std::uint32_t config_read(std::uint32_t reg, std::uint32_t size) override {
    reads.push_back({reg, size});
    return 0x11223344;
  }
  void config_write(std::uint32_t reg, std::uint32_t size, std::uint32_t value) override {
    writes.push_back({reg, size, value});
  }
  void reset() override { ++resets; }

  std::vector<std::array<std::uint32_t, 2>> reads;
  std::vector<std::array<std::uint32_t, 3>> writes;
  int resets = 0;
};

using Access = std::array<std::uint32_t, 2>;
using Store = std::array<std::uint32_t, 3>;

std::uint64_t in(BusDevice& device, std::uint64_t offset, std::size_t size) {
  std::byte bytes[8];
  device.read(offset, {bytes, size});
  return load_le({bytes, size});
}

void out(BusDevice& device, std::uint64_t offset, std::size_t size, std::uint64_t value) {
  std::byte bytes[8];
  store_le({bytes, size}, value);
  device.write(offset, std::span<const std::byte>{bytes, size});
}

struct Host {
  PciHost host;
  FakeFunction function;
  Host() { host.add(3, function); }
};

constexpr std::uint64_t ecam(std::uint32_t device, std::uint32_t function, std::uint32_t reg) {
  return device << 15 | function << 12 | reg;
}

constexpr std::uint32_t kAddress = 0x80001800;  // bus 0, device 3, function 0

}  // namespace

TEST_CASE("PCI 3.0 §6.2.1 the host bridge answers at 00:00.0 and its identity cannot be written") {
  Host pci;
  CHECK(in(pci.host.ecam(), ecam(0, 0, 0), 4) == 0x00081b36);
  CHECK((in(pci.host.ecam(), ecam(0, 0, 8), 4) >> 8) == 0x060000);
  out(pci.host.ecam(), ecam(0, 0, 0), 4, 0);
  CHECK(in(pci.host.ecam(), ecam(0, 0, 0), 4) == 0x00081b36);
  CHECK(in(pci.host.ecam(), ecam(0, 0, 0x100), 4) == 0);
}

TEST_CASE("PCI 3.0 §3.2.2.3.4 absent functions read all ones, writes to them are dropped") {
  Host pci;
  CHECK(in(pci.host.ecam(), ecam(4, 0, 0), 4) == 0xffffffff);
  CHECK(in(pci.host.ecam(), ecam(3, 1, 0), 2) == 0xffff);
  CHECK(in(pci.host.ecam(), ecam(31, 7, 0xff8), 8) == ~0ULL);
  out(pci.host.ecam(), ecam(3, 1, 4), 2, 7);
  CHECK(pci.function.reads.empty());
  CHECK(pci.function.writes.empty());
}

TEST_CASE("PCIe 4.0 §7.2.2 ECAM decodes device, function and register; 8 bytes are two accesses") {
  Host pci;
  CHECK(in(pci.host.ecam(), ecam(3, 0, 0xabc), 4) == 0x11223344);
  CHECK(in(pci.host.ecam(), ecam(3, 0, 0x0d), 1) == 0x44);
  CHECK(in(pci.host.ecam(), ecam(3, 0, 0x10), 8) == 0x1122334411223344);
  out(pci.host.ecam(), ecam(3, 0, 0x18), 8, 0xaaaabbbbccccdddd);
  out(pci.host.ecam(), ecam(3, 0, 0x21), 4, 0x04030201);  // unaligned: natural pieces
  CHECK(pci.function.reads == std::vector<Access>{{0xabc, 4}, {0x0d, 1}, {0x10, 4}, {0x14, 4}});
  CHECK(pci.function.writes == std::vector<Store>{{0x18, 4, 0xccccdddd},
                                                  {0x1c, 4, 0xaaaabbbb},
                                                  {0x21, 1, 0x01},
                                                  {0x22, 2, 0x0302},
                                                  {0x24, 1, 0x04}});
}

TEST_CASE("PCI 3.0 §3.2.2.3.2 CF8/CFC: address latch, enable bit, all widths, other buses") {
  Host pci;
  BusDevice& ports = pci.host.config_ports();
  CHECK(in(ports, 4, 4) == 0xffffffff);  // not enabled
  out(ports, 0, 4, kAddress | 0x43);     // the low bits do not stick
  CHECK(in(ports, 0, 4) == (kAddress | 0x40));
  CHECK(in(ports, 4, 4) == 0x11223344);
  CHECK(in(ports, 6, 2) == 0x3344);
  CHECK(in(ports, 7, 1) == 0x44);
  out(ports, 5, 1, 0x9a);
  out(ports, 4, 2, 0xbcde);
  CHECK(pci.function.reads == std::vector<Access>{{0x40, 4}, {0x42, 2}, {0x43, 1}});
  CHECK(pci.function.writes == std::vector<Store>{{0x41, 1, 0x9a}, {0x40, 2, 0xbcde}});

  out(ports, 0, 1, 0);  // a narrow write leaves the latch alone
  out(ports, 0, 2, 0);
  CHECK(in(ports, 0, 4) == (kAddress | 0x40));
  out(ports, 0, 4, kAddress | 0x10000);  // bus 1
  CHECK(in(ports, 4, 4) == 0xffffffff);
  out(ports, 0, 4, kAddress & 0x7fffffff);
  CHECK(in(ports, 4, 4) == 0xffffffff);
  CHECK(pci.function.reads.size() == 3);
}

TEST_CASE("a machine reset reaches every function once and clears the address latch") {
  Host pci;
  out(pci.host.config_ports(), 0, 4, kAddress);
  out(pci.host.ecam(), ecam(0, 0, 0x3c), 1, 9);
  pci.host.reset();
  CHECK(pci.function.resets == 1);
  CHECK(in(pci.host.config_ports(), 0, 4) == 0);
  CHECK(in(pci.host.ecam(), ecam(0, 0, 0x3c), 1) == 0);
}
