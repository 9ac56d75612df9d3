// The buses: who answers which address, and that look-ups and changes never wait for each other.
#include <array>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "vmm/bus.h"

using outboard::devices::BusDevice;
using outboard::devices::Priority;
using outboard::devices::Space;
using outboard::vmm::Bus;

namespace {

// Answers every byte with its own number, and remembers the last access.
class Numbered final : public BusDevice {
 public:
  explicit Numbered(int number) : number_(number) {}
  void read(std::uint64_t offset, std::span<std::byte> data) override {
    last_offset = offset;
    last_size = data.size();
    for (std::byte& byte : data) byte = static_cast<std::byte>(number_);
  }
  void write(std::uint64_t offset, std::span<const std::byte> data) override {
    last_offset = offset;
    last_size = data.size();
    written = std::to_integer<int>(data[0]);
  }

  // Several readers may be in one device at once.
  std::atomic<std::uint64_t> last_offset{0};
  std::atomic<std::size_t> last_size{0};
  std::atomic<int> written{-1};

 private:
  int number_;
};

int read_byte(Bus::Reader& reader, std::uint64_t address, Space space = Space::mmio) {
  std::array<std::byte, 1> data{};
  reader.read(space, address, data);
  return std::to_integer<int>(data[0]);
}

}  // namespace

TEST_CASE("with a port window, ports are answered there as memory, and as ports no longer") {
  Bus bus(0xb000000);
  Numbered device(1);
  const auto id = bus.map(Space::pio, 0x1000, 0x10, device, Priority::bar);
  Bus::Reader reader(bus);
  CHECK(read_byte(reader, 0xb001004) == 1);
  CHECK(device.last_offset == 4);
  CHECK(read_byte(reader, 0x1004, Space::pio) == 0xff);
  CHECK(read_byte(reader, 0x1004) == 0xff);
  bus.unmap(id);
  CHECK(read_byte(reader, 0xb001004) == 0xff);
}

TEST_CASE("an access reaches the device of its range, with the offset from the mapping's base") {
  Bus bus;
  Numbered device(1);
  bus.map(Space::mmio, 0x1000, 0x100, device, Priority::fixed);
  Bus::Reader reader(bus);
  CHECK(read_byte(reader, 0x1000) == 1);
  CHECK(read_byte(reader, 0x10ff) == 1);
  CHECK(device.last_offset == 0xff);
  CHECK(read_byte(reader, 0xfff) == 0xff);
  CHECK(read_byte(reader, 0x1100) == 0xff);
  const std::array<std::byte, 4> data{std::byte{7}};
  reader.write(Space::mmio, 0x1010, data);
  CHECK(device.written == 7);
  CHECK(device.last_offset == 0x10);
  CHECK(device.last_size == 4);
}

TEST_CASE("memory and ports are spaces of their own") {
  Bus bus;
  Numbered memory(1);
  Numbered ports(2);
  bus.map(Space::mmio, 0x60, 4, memory, Priority::fixed);
  bus.map(Space::pio, 0x60, 4, ports, Priority::fixed);
  Bus::Reader reader(bus);
  CHECK(read_byte(reader, 0x60, Space::mmio) == 1);
  CHECK(read_byte(reader, 0x60, Space::pio) == 2);
}

TEST_CASE("where nothing is mapped, reads are all ones, writes are dropped, and both are counted") {
  Bus bus;
  Bus::Reader reader(bus);
  std::array<std::byte, 8> data{};
  reader.read(Space::mmio, 0x5000, data);
  for (const std::byte byte : data) CHECK(byte == std::byte{0xff});
  reader.write(Space::pio, 0x80, std::span<const std::byte>(data).first(1));
  CHECK(reader.unhandled() == 2);
}

TEST_CASE("an access across the end of a mapping is cut: each device gets its own bytes") {
  Bus bus;
  Numbered low(1);
  Numbered high(2);
  bus.map(Space::mmio, 0x1000, 0x10, low, Priority::fixed);
  bus.map(Space::mmio, 0x1012, 0x10, high, Priority::fixed);
  Bus::Reader reader(bus);
  std::array<std::byte, 8> data{};
  reader.read(Space::mmio, 0x100c, data);
  const std::array<int, 8> expected{1, 1, 1, 1, 0xff, 0xff, 2, 2};
  for (std::size_t i = 0; i < 8; ++i) CHECK(std::to_integer<int>(data[i]) == expected[i]);
  CHECK(low.last_size == 4);
  CHECK(high.last_size == 2);
  CHECK(high.last_offset == 0);
}

TEST_CASE("of overlapping mappings a fixed one wins over a BAR, then the older one wins") {
  Bus bus;
  Numbered older(1);
  Numbered younger(2);
  Numbered fixed(3);
  const auto first = bus.map(Space::mmio, 0x1000, 0x3000, older, Priority::bar);
  bus.map(Space::mmio, 0x2000, 0x4000, younger, Priority::bar);
  const auto wall = bus.map(Space::mmio, 0x1800, 0x1000, fixed, Priority::fixed);
  Bus::Reader reader(bus);
  CHECK(read_byte(reader, 0x1000) == 1);
  CHECK(read_byte(reader, 0x1800) == 3);
  CHECK(read_byte(reader, 0x27ff) == 3);
  CHECK(read_byte(reader, 0x2800) == 1);
  CHECK(older.last_offset == 0x1800);  // still counted from the mapping's own base
  CHECK(read_byte(reader, 0x3fff) == 1);
  CHECK(read_byte(reader, 0x4000) == 2);
  CHECK(younger.last_offset == 0x2000);
  bus.unmap(wall);
  CHECK(read_byte(reader, 0x1800) == 1);
  bus.unmap(first);
  CHECK(read_byte(reader, 0x1800) == 0xff);
  CHECK(read_byte(reader, 0x2000) == 2);
  CHECK(younger.last_offset == 0);
}

TEST_CASE("a mapping may end with the last address of the space") {
  Bus bus;
  Numbered device(1);
  Numbered below(2);
  bus.map(Space::mmio, ~std::uint64_t{0} - 0xfff, 0x1000, device, Priority::bar);
  bus.map(Space::mmio, ~std::uint64_t{0} - 0x1fff, 0x2000, below, Priority::bar);
  Bus::Reader reader(bus);
  CHECK(read_byte(reader, ~std::uint64_t{0}) == 1);
  CHECK(read_byte(reader, ~std::uint64_t{0} - 0x1000) == 2);
}

TEST_CASE("unmap of an unknown id and an empty mapping change nothing") {
  Bus bus;
  Numbered device(1);
  bus.unmap(outboard::devices::MapId{99});
  const auto empty = bus.map(Space::mmio, 0x1000, 0, device, Priority::bar);
  Bus::Reader reader(bus);
  CHECK(read_byte(reader, 0x1000) == 0xff);
  bus.unmap(empty);
}

TEST_CASE("a device may change mappings in the middle of its own access") {
  // As a guest does that moves a BAR through a config write.
  Bus bus;
  struct Mover final : BusDevice {
    Bus& bus;
    Numbered target{5};
    outboard::devices::MapId at{};
    explicit Mover(Bus& the_bus) : bus(the_bus) {
      at = bus.map(Space::mmio, 0x8000, 0x1000, target, Priority::bar);
    }
    void read(std::uint64_t, std::span<std::byte> data) override {
      for (std::byte& byte : data) byte = std::byte{0};
    }
    void write(std::uint64_t, std::span<const std::byte> data) override {
      bus.unmap(at);
      at = bus.map(Space::mmio, std::to_integer<std::uint64_t>(data[0]) << 12, 0x1000, target,
                   Priority::bar);
    }
  } mover(bus);
  bus.map(Space::mmio, 0, 16, mover, Priority::fixed);
  Bus::Reader reader(bus);
  const std::array<std::byte, 1> to{std::byte{0x20}};
  reader.write(Space::mmio, 0, to);
  CHECK(read_byte(reader, 0x8000) == 0xff);
  CHECK(read_byte(reader, 0x20000) == 5);
  CHECK(bus.retired() == 0);
}

TEST_CASE("look-ups beside changes see the old or the new place, and old tables do not pile up") {
  Bus bus;
  Numbered fixed(1);
  Numbered moving(2);
  bus.map(Space::mmio, 0x1000, 0x1000, fixed, Priority::fixed);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::jthread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      Bus::Reader reader(bus);
      while (!stop.load()) {
        std::array<std::byte, 1> data{};
        reader.read(Space::mmio, 0x9000, data);
        const int value = std::to_integer<int>(data[0]);
        if (value != 2 && value != 0xff) ++wrong;
      }
    });
  }
  auto id = bus.map(Space::mmio, 0x9000, 0x1000, moving, Priority::bar);
  for (int i = 0; i < 5000; ++i) {
    bus.unmap(id);
    id = bus.map(Space::mmio, i % 2 == 0 ? 0x9000 : 0x5000, 0x1000, moving, Priority::bar);
  }
  stop = true;
  readers.clear();
  CHECK(wrong == 0);
  CHECK(bus.retired() <= 3);  // no more than there were readers
  bus.unmap(id);
  CHECK(bus.retired() == 0);
}
