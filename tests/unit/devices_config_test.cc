#include <algorithm>
#include <array>
#include <random>

#include <doctest/doctest.h>

#include "devices/aligned_pieces.h"
#include "devices/bar_registers.h"
#include "devices/capability_list.h"
#include "devices/config_policy.h"
#include "devices/config_space.h"
#include "devices/pci_registers.h"
#include "devices/region_pages.h"

using namespace outboard;
using namespace outboard::devices;

namespace {

// A device's bytes, regions and interrupts, to be bent by each test.
struct Raw {
  Raw() : bytes(4096) {
    for (std::uint32_t i = 0; i < 9; ++i) regions.emplace_back().index = i;
    for (std::uint32_t i = 0; i < 5; ++i) irqs.push_back({i, 1, true, false, false, false});
    irqs[2].count = 8;
    region(0, 0x4000);
    set(0, 4, 0x00014e58);
    set(pci::kStatus, 2, pci::status::kCapabilityList);
    set(pci::kInterruptPin, 1, 1);
    set(pci::kCapabilities, 1, 0x40);
  }
  void region(std::uint32_t index, std::uint64_t size) {
    regions[index].size = size;
    regions[index].readable = regions[index].writable = true;
  }
  void set(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
    store_le(std::span(bytes).subspan(reg, size), value);
  }
  void msix(std::uint32_t at, std::uint32_t next, std::uint32_t vectors, std::uint32_t table,
            std::uint32_t pba) {
    set(at, 4, 0x11 | next << 8 | (vectors - 1) << 16);
    set(at + 4, 4, table);
    set(at + 8, 4, pba);
  }
  Result<BarRegisters> bars() const { return BarRegisters::create(regions, bytes); }
  Result<ConfigPlan> plan() const {
    const auto registers = bars();
    if (!registers) return tl::unexpected(registers.error());
    ConfigRequest request;
    request.config = bytes;
    request.regions = regions;
    request.irqs = irqs;
    request.bars = &*registers;
    request.interrupt_pin = true;
    return plan_config(request);
  }

  std::vector<std::byte> bytes;
  std::vector<vfio_user::Region> regions;
  std::vector<vfio_user::Irq> irqs;
};

std::vector<std::uint32_t> ids(std::span<const Capability> list) {
  std::vector<std::uint32_t> out;
  for (const Capability& entry : list) out.push_back(entry.id);
  return out;
}

using Ids = std::vector<std::uint32_t>;

}  // namespace

TEST_CASE("PCI 3.0 §6.1 config space: masks, write-one-to-clear, narrow writes, beyond the end") {
  ConfigSpace config(ConfigSpace::kConventional);
  config.set(4, 4, 0xaabbccdd);
  config.allow_write(4, 2, 0x0ff0);
  config.allow_clear(6, 2, 0xff00);
  config.write(4, 4, 0x12345678);
  CHECK(config.read(4, 4) == 0xa8bbc67d);
  config.write(5, 1, 0xff);
  CHECK(config.read(4, 2) == 0xcf7d);
  config.write(254, 4, 0xffffffff);
  CHECK(config.read(254, 4) == 0);
  CHECK(config.read(4096, 1) == 0);
}

TEST_CASE("C48 capability walks end: loops, pointers into the header, all ones, backward links") {
  Raw raw;
  SUBCASE("self loop") {
    raw.set(0x40, 2, 0x4009);
    CHECK(ids(walk_capabilities(raw.bytes)) == Ids{9});
  }
  SUBCASE("cycle of two") {
    raw.set(0x40, 2, 0x8009);
    raw.set(0x80, 2, 0x4001);
    CHECK(ids(walk_capabilities(raw.bytes)) == Ids{9, 1});
  }
  SUBCASE("into the header") {
    raw.set(0x40, 2, 0x1009);
    CHECK(ids(walk_capabilities(raw.bytes)) == Ids{9});
  }
  SUBCASE("low bits are reserved (§6.7)") {
    raw.set(pci::kCapabilities, 1, 0x43);
    raw.set(0x40, 2, 0x0009);
    CHECK(ids(walk_capabilities(raw.bytes)) == Ids{9});
  }
  SUBCASE("no list in STATUS") {
    raw.set(pci::kStatus, 2, 0);
    raw.set(0x40, 2, 0x0009);
    CHECK(walk_capabilities(raw.bytes).empty());
  }
  SUBCASE("extended: cycle, then 0xfff") {
    raw.set(0x100, 4, 0x2001000b);
    raw.set(0x200, 4, 0x1001000b);
    CHECK(walk_extended_capabilities(raw.bytes).size() == 2);
    raw.set(0x200, 4, 0xfff1000b);
    CHECK(walk_extended_capabilities(raw.bytes).size() ==
          2);  // no header fits there but an empty one
    raw.set(0x100, 4, 0xffffffff);
    CHECK(walk_extended_capabilities(raw.bytes).empty());
  }
}

TEST_CASE("links are rewritten around hidden capabilities") {
  ConfigSpace config(ConfigSpace::kExtended);
  config.set(pci::kStatus, 2, pci::status::kCapabilityList);
  config.set(0x40, 2, 0x5001);
  config.set(0x50, 2, 0x6011);
  config.set(0x60, 2, 0x0010);
  const std::array<Capability, 2> kept{{{1, 0x40}, {0x10, 0x60}}};
  config.set(pci::kCapabilities, 1, 0x40);
  link_capabilities(config, kept);
  CHECK(ids(walk_capabilities(config.bytes())) == Ids{1, 0x10});
  link_capabilities(config, {});
  CHECK(config.read(pci::kStatus, 2) == 0);

  config.set(0x100, 4, 0x14010010);
  config.set(0x140, 4, 0x18010003);
  config.set(0x180, 4, 0x00020001);
  const std::array<Capability, 2> extended{{{3, 0x140}, {1, 0x180}}};
  link_extended_capabilities(config, extended);
  CHECK(config.read(0x100, 4) == 0x14000000);  // a null capability leads on
  CHECK(ids(walk_extended_capabilities(config.bytes())) == Ids{0, 3, 1});
  link_extended_capabilities(config, {});
  CHECK(walk_extended_capabilities(config.bytes()).empty());
}

TEST_CASE("C48 a config space of ones, a short one, a bridge: refused with one line") {
  Raw raw;
  SUBCASE("all ones") {
    std::ranges::fill(raw.bytes, std::byte{0xff});
    raw.regions[0].size = 0;
  }
  SUBCASE("short") {
    raw.bytes.resize(32);
  }
  SUBCASE("bridge") {
    raw.set(pci::kHeaderType, 1, 1);
  }
  const auto plan = raw.plan();
  REQUIRE_FALSE(plan);
  CHECK_FALSE(plan.error().message.empty());
  CHECK(plan.error().message.find('\n') == std::string::npos);
}

TEST_CASE("C47 config regions of 64 and of 256 bytes are enough") {
  Raw raw;
  std::size_t size = 0;
  SUBCASE("64") {
    size = 64;
  }
  SUBCASE("256") {
    size = 256;
  }
  raw.bytes.resize(size);
  const auto plan = raw.plan();
  REQUIRE(plan);
  CHECK(plan->shadow.size() == 256);
}

TEST_CASE("C48 MSI-X that cannot work is hidden with a remark, the rest of the list stays") {
  Raw raw;
  raw.set(0x50, 2, 0x0001);  // a power management capability behind it
  SUBCASE("table BIR of an absent BAR") {
    raw.msix(0x40, 0x50, 4, 0x0001, 0x1000);
  }
  SUBCASE("BIR 7") {
    raw.msix(0x40, 0x50, 4, 0x0007, 0x1000);
  }
  SUBCASE("table beyond the BAR") {
    raw.msix(0x40, 0x50, 8, 0x3f88, 0x1000);
  }
  SUBCASE("PBA beyond the BAR") {
    raw.msix(0x40, 0x50, 8, 0, 0x4000);
  }
  SUBCASE("table and PBA overlap") {
    raw.msix(0x40, 0x50, 8, 0x1000, 0x1008);
  }
  SUBCASE("no vector") {
    raw.msix(0x40, 0x50, 8, 0, 0x1000);
    raw.irqs[2].count = 0;
  }
  SUBCASE("no eventfd") {
    raw.msix(0x40, 0x50, 8, 0, 0x1000);
    raw.irqs[2].eventfd = false;
  }
  SUBCASE("table in an I/O BAR") {
    raw.region(1, 0x100);
    raw.set(pci::kBar0 + 4, 4, 1);
    raw.msix(0x40, 0x50, 1, 0x0001, 0x1000);
  }
  const auto plan = raw.plan();
  REQUIRE(plan);
  CHECK_FALSE(plan->msix);
  CHECK(plan->remarks.size() == 1);
  CHECK(ids(walk_capabilities(plan->shadow.bytes())) == Ids{1});
}

TEST_CASE("C48 2048 vectors claimed with an IRQ count of 1: one is shown") {
  Raw raw;
  raw.region(0, 0x10000);
  raw.msix(0x40, 0, 2048, 0, 0x9000);
  raw.irqs[2].count = 1;
  const auto plan = raw.plan();
  REQUIRE(plan);
  REQUIRE(plan->msix);
  CHECK(plan->msix->vectors == 1);
  CHECK(plan->shadow.read(0x42, 2) == 0);
}

TEST_CASE("C64 MSI-X IRQ counts 2049 and 2^32-1 are cut to the table's size") {
  Raw raw;
  raw.msix(0x40, 0, 16, 0, 0x1000);
  for (const std::uint32_t irqs : {2049U, 0xffffffffU}) {
    raw.irqs[2].count = irqs;
    const auto plan = raw.plan();
    REQUIRE(plan);
    CHECK(plan->msix->vectors == 16);
  }
}

TEST_CASE("capabilities this machine has no use for are hidden") {
  Raw raw;
  raw.set(0x40, 2, 0x5014);  // enhanced allocation
  raw.set(0x50, 2, 0x0009);
  raw.set(0x100, 4, 0x14010010);  // SR-IOV, then a serial number
  raw.set(0x140, 4, 0x00010003);
  const auto plan = raw.plan();
  REQUIRE(plan);
  CHECK(ids(walk_capabilities(plan->shadow.bytes())) == Ids{9});
  CHECK(ids(walk_extended_capabilities(plan->shadow.bytes())) == Ids{0, 3});
}

TEST_CASE("a vendor capability that claims the whole space does not bring hidden headers back") {
  Raw raw;
  raw.set(0x100, 4, 0x1401000b);
  raw.set(0x104, 4, 0xf0000000);
  raw.set(0x140, 4, 0x00010010);  // SR-IOV
  const auto plan = raw.plan();
  REQUIRE(plan);
  CHECK(ids(walk_extended_capabilities(plan->shadow.bytes())) == Ids{0xb});
  CHECK(plan->shadow.read(0x100, 4) == 0x0001000b);
  CHECK_FALSE(plan->at_server[0x100]);
  CHECK(plan->at_server[0x108]);
}

TEST_CASE("C49 BAR layouts no guest can use are refused") {
  Raw raw;
  raw.regions[0].size = 0;
  SUBCASE("64-bit BAR in register 5") {
    raw.region(5, 0x1000);
    raw.set(pci::kBar0 + 20, 4, 4);
  }
  SUBCASE("64-bit BAR followed by a sized odd BAR") {
    raw.region(0, 0x1000);
    raw.region(1, 0x1000);
    raw.set(pci::kBar0, 4, 4);
  }
  SUBCASE("C47 4 GiB in 32 bits") {
    raw.region(0, 1ULL << 32);
  }
  SUBCASE("C47 2^63") {
    raw.region(0, 1ULL << 63);
    raw.set(pci::kBar0, 4, 4);
  }
  const auto bars = raw.bars();
  REQUIRE_FALSE(bars);
  CHECK(bars.error().message.find("BAR") != std::string::npos);
}

TEST_CASE("C47 BAR sizes 1, 0x3000 and 2^40; an I/O BAR with pages becomes a memory BAR") {
  Raw raw;
  raw.region(0, 1);
  raw.region(1, 0x3000);
  raw.region(2, 1ULL << 40);
  raw.set(pci::kBar0 + 8, 4, 0xc);
  raw.region(4, 0x1000);
  raw.set(pci::kBar0 + 16, 4, 1);
  raw.regions[4].mappable = true;
  raw.region(5, 6);
  raw.set(pci::kBar0 + 20, 4, 1);
  auto bars = raw.bars();
  REQUIRE(bars);
  CHECK(bars->info(0)->size == 16);
  CHECK(bars->info(1)->size == 0x4000);
  CHECK(bars->info(2)->kind == BarInfo::Kind::memory64);
  CHECK(bars->info(2)->prefetchable);
  CHECK(bars->info(4)->kind == BarInfo::Kind::memory32);
  CHECK(bars->info(5)->kind == BarInfo::Kind::io);
  CHECK(bars->info(5)->size == 8);

  BarAllocator roomy({0xc0000000, 0x20000000}, {0x10000000000, 0x20000000000}, {0xc000, 0x4000});
  REQUIRE(bars->place(roomy));
  CHECK(bars->info(2)->address == 0x10000000000);
  CHECK(bars->info(0)->address % 4096 == 0);
  auto again = raw.bars();
  BarAllocator tight({0xc0000000, 0x20000000}, {0x10000000000, 0x1000000000}, {0xc000, 0x4000});
  const auto placed = again->place(tight);
  REQUIRE_FALSE(placed);
  CHECK(placed.error().message.find("BAR 2") != std::string::npos);
}

TEST_CASE("BARs decode where they are, not while they hold a sizing value, 0, or the bit is off") {
  Raw raw;
  raw.region(1, 0x100);
  raw.set(pci::kBar0 + 4, 4, 1);
  raw.region(6, 0x1000);
  auto bars = raw.bars();
  REQUIRE(bars);
  CHECK_FALSE(bars->decoded(0, 3));
  bars->write(0x10, 4, 0xc0000000);
  CHECK(bars->decoded(0, 2) == 0xc0000000);
  CHECK_FALSE(bars->decoded(0, 1));
  bars->write(0x10, 4, 0xffffffff);
  CHECK_FALSE(bars->decoded(0, 3));
  bars->write(0x12, 2, 0xd123);  // a narrow write keeps the other half
  CHECK(bars->read(0x10, 4) == 0xd123c000);
  CHECK(bars->read(0x13, 1) == 0xd1);
  bars->write(0x14, 4, 0xc001);
  CHECK(bars->decoded(1, 1) == 0xc000);
  bars->write(0x14, 4, 0xffffffff);
  CHECK(bars->read(0x14, 4) == 0xffffff01);
  CHECK_FALSE(bars->decoded(1, 1));
  bars->write(0x30, 4, 0xc8000000);
  CHECK_FALSE(bars->decoded(6, 2));
  bars->write(0x30, 4, 0xc8000001);
  CHECK(bars->decoded(6, 2) == 0xc8000000);
  bars->reset();
  CHECK_FALSE(bars->decoded(6, 2));
}

TEST_CASE(
    "the allocator aligns each range to its size and prefers the 64-bit window for 64-bit BARs") {
  BarAllocator allocator({0xc0000000, 0x3000}, {0x1000000000, 0x10000}, {0xc000, 0x40});
  CHECK(allocator.take_memory(0x1000, false) == 0xc0000000);
  CHECK_FALSE(allocator.take_memory(0x4000, false));
  CHECK(allocator.take_memory(0x2000, false) == std::nullopt);  // only unaligned room is left
  CHECK(allocator.take_memory(0x8000, true) == 0x1000000000);
  CHECK(allocator.take_memory(0x8000, true) == 0x1000008000);
  CHECK(allocator.take_memory(0x1000, true) == 0xc0001000);  // the 64-bit window is full
  CHECK(allocator.take_ports(0x20) == 0xc000);
  CHECK(allocator.take_ports(0x20) == 0xc020);
  CHECK_FALSE(allocator.take_ports(4));
}

TEST_CASE("pages that hold the MSI-X table or the PBA are cut out of an area") {
  using Parts = std::vector<AddressWindow>;
  const std::array<AddressWindow, 2> holes{{{0x2010, 0x80}, {0x4ff8, 0x10}}};
  CHECK(without_pages({0, 0x8000}, holes) ==
        Parts{{0, 0x2000}, {0x3000, 0x1000}, {0x6000, 0x2000}});
  CHECK(without_pages({0x2000, 0x1000}, holes).empty());
  CHECK(without_pages({0x3000, 0x1000}, holes) == Parts{{0x3000, 0x1000}});
}

TEST_CASE("C48 2000 random config spaces give a plan or one line, and every shown list ends") {
  std::mt19937 random(20260906);
  Raw raw;
  raw.region(1, 0x100);
  for (int i = 0; i < 2000; ++i) {
    for (std::size_t at = 0; at < raw.bytes.size(); at += 4) {
      // Mostly plausible headers and pointers, so that walks go deep.
      auto value = static_cast<std::uint32_t>(random());
      if (value % 4 == 0) value = (value >> 8) % 0x18 | (value >> 16 & 0xfc) << 8;
      store_le(std::span(raw.bytes).subspan(at, 4), value);
    }
    raw.set(pci::kHeaderType, 1, 0);
    raw.set(pci::kStatus, 2, pci::status::kCapabilityList);
    const auto plan = raw.plan();
    if (!plan) {
      CHECK_FALSE(plan.error().message.empty());
      continue;
    }
    if (plan->msix) {
      CHECK(plan->msix->table_offset + plan->msix->table_size() <=
            raw.regions[plan->msix->table_region].size);
    }
    CHECK(walk_capabilities(plan->shadow.bytes()).size() <= 48);
  }
}
