#include <doctest/doctest.h>

#include "tests/unit/nvme_guest.h"

namespace outboard::nvme::test {
namespace {

Driver disk(u64 size = 1 << 20) {
  return Driver(one(memory_namespace(size)));
}

}  // namespace

TEST_CASE("NVMe 1.4 §3.1.1 CAP and §3.1.2 VS tell what is implemented") {
  Driver guest = disk();
  CHECK((guest.read32(reg::cap) & 0xffff) == 1023);      // MQES
  CHECK((guest.read32(reg::cap) >> 16 & 1) == 1);        // CQR
  CHECK((guest.read32(reg::cap + 4) & 0xf) == 0);        // DSTRD
  CHECK((guest.read32(reg::cap + 4) >> 5 & 1) == 1);     // NVM command set
  CHECK((guest.read32(reg::cap + 4) >> 16 & 0xf) == 0);  // MPSMIN 4 KiB
  CHECK((guest.read32(reg::cap + 4) >> 20 & 0xf) == 4);  // MPSMAX 64 KiB
  CHECK(guest.read32(reg::version) == 0x10400);
}

TEST_CASE("Registers answer reads of every width and alignment alike") {
  Driver guest = disk();
  std::array<std::byte, 64> whole;
  guest.controller.read_bar(0, whole);
  for (std::size_t offset = 0; offset < 32; ++offset) {
    for (const std::size_t width : {1u, 2u, 4u, 8u}) {
      std::array<std::byte, 8> part;
      guest.controller.read_bar(offset, std::span(part).first(width));
      CHECK(std::memcmp(part.data(), whole.data() + offset, width) == 0);
    }
  }
}

TEST_CASE(
    "NVMe 1.4 §3.1.5 CC.EN: RDY follows it in both directions; queues go, AQA, ASQ, ACQ stay") {
  Driver guest = disk();
  CHECK(guest.read32(reg::csts) == 0);
  guest.enable();
  CHECK(guest.read32(reg::csts) == kCstsReady);
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  guest.disable();
  CHECK(guest.read32(reg::csts) == 0);
  CHECK(guest.read32(reg::aqa) == (31u << 16 | 31));
  CHECK(guest.read32(reg::asq) == static_cast<u32>(Driver::queue_at(0, false)));
  CHECK_FALSE(guest.state.sq[1].live);
  guest.enable();
  CHECK(guest.read32(reg::csts) == kCstsReady);
  CHECK(guest.create_pair(1, 8) == Status::success);
}

TEST_CASE("NVMe 1.4 §3.1.6 a controller that cannot be enabled so reports CFS, and recovers") {
  struct Case {
    const char* what;
    u32 aqa;
    u64 asq;
    u32 cc;
  };
  const u32 good_cc = 6u << 16 | 4u << 20 | 1;
  const Case cases[] = {
      {"command set", 31u << 16 | 31, kRam, good_cc | 1u << 4},
      {"arbitration", 31u << 16 | 31, kRam, good_cc | 1u << 11},
      {"page size", 31u << 16 | 31, kRam, good_cc | 5u << 7},
      {"SQ of one entry", 31u << 16, kRam, good_cc},
      {"CQ of one entry", 31, kRam, good_cc},
      {"ASQ below the page size", 31u << 16 | 31, kRam + 0x1000, good_cc | 1u << 7},
  };
  for (const Case& c : cases) {
    INFO(c.what);
    Driver guest = disk();
    guest.write32(reg::aqa, c.aqa);
    guest.write64(reg::asq, c.asq);
    guest.write64(reg::acq, Driver::queue_at(0, true));
    guest.write32(reg::cc, c.cc);
    CHECK((guest.read32(reg::csts) & kCstsFatal) != 0);
    CHECK((guest.read32(reg::csts) & kCstsReady) == 0);
    guest.write32(reg::cc, 0);
    CHECK(guest.read32(reg::csts) == 0);
    guest.enable();
    CHECK(guest.read32(reg::csts) == kCstsReady);
  }
}

TEST_CASE("A submission queue outside guest memory is a fatal status, not an access") {
  Driver guest = disk();
  guest.write32(reg::aqa, 31u << 16 | 31);
  guest.write64(reg::asq, 0xffff'ffff'0000'0000);
  guest.write64(reg::acq, 0xffff'0000'0000'0000);
  guest.write32(reg::cc, 6u << 16 | 4u << 20 | 1);
  guest.write32(reg::doorbells, 1);
  guest.turn_until_quiet();
  CHECK((guest.read32(reg::csts) & kCstsFatal) != 0);
  guest.disable();
  CHECK(guest.read32(reg::csts) == 0);
}

TEST_CASE("NVMe 1.4 §7.6.2 CC.SHN: caches are flushed, then SHST says complete") {
  Driver guest = disk();
  guest.enable();
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  guest.write32(reg::cc, 6u << 16 | 4u << 20 | 1u << 14 | 1);
  CHECK((guest.read32(reg::csts) & kCstsShutdownMask) == kCstsShutdownOccurring);
  guest.turn_until_quiet();
  CHECK((guest.read32(reg::csts) & kCstsShutdownMask) == kCstsShutdownComplete);
  CHECK(guest.controller.counters().shutdowns == 1);
  guest.disable();
  CHECK(guest.read32(reg::csts) == 0);
  guest.enable();
  CHECK(guest.run(0, Driver::admin(AdminOpcode::identify)).status == Status::invalid_namespace);
}

TEST_CASE("Writes of registers that are read-only, reserved, odd or narrow change nothing") {
  Driver guest = disk();
  std::array<std::byte, 0x1000> before;
  guest.controller.read_bar(0, before);
  const std::array<std::byte, 8> ones = {std::byte{0xff}, std::byte{0xff}, std::byte{0xff},
                                         std::byte{0xff}, std::byte{0xff}, std::byte{0xff},
                                         std::byte{0xff}, std::byte{0xff}};
  for (u64 offset = 0; offset < kBar0Size; ++offset) {
    guest.controller.write_bar(offset, std::span(ones).first(1));
    guest.controller.write_bar(offset, std::span(ones).first(2));
    if (offset % 4 != 0) guest.controller.write_bar(offset, std::span(ones).first(4));
  }
  for (const u64 offset : {reg::cap, reg::cap + 4, reg::version, reg::csts, reg::nssr, u64{0x38},
                           u64{0x40}, u64{0xffc}}) {
    guest.write32(offset, 0xffff'ffff);
  }
  std::array<std::byte, 0x1000> after;
  guest.controller.read_bar(0, after);
  CHECK(before == after);
}

TEST_CASE("A device reset is as power-on: registers, queues, features, error log") {
  Driver guest = disk();
  guest.enable();
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  Command set = Driver::admin(AdminOpcode::set_features);
  set.dw10 = 0x01;
  set.dw11 = 3;
  REQUIRE(guest.run(0, set).status == Status::success);
  guest.controller.reset();
  CHECK(guest.read32(reg::cc) == 0);
  CHECK(guest.read32(reg::csts) == 0);
  CHECK(guest.read32(reg::aqa) == 0);
  CHECK(guest.read32(reg::asq) == 0);
  guest.enable();
  Command get = Driver::admin(AdminOpcode::get_features);
  get.dw10 = 0x01;
  CHECK(guest.run(0, get).dw0 == 6);
}

TEST_CASE("NVMe 1.4 §3.1.3 INTMS and INTMC mask the pin") {
  Driver guest = disk();
  guest.interrupts.messages = false;
  guest.enable();
  const u16 id = guest.push(0, Driver::admin(AdminOpcode::identify));
  guest.ring(0);
  guest.turn_until_quiet();
  CHECK(guest.interrupts.pin);
  guest.write32(reg::intms, 1);
  CHECK_FALSE(guest.interrupts.pin);
  CHECK(guest.read32(reg::intmc) == 1);
  guest.write32(reg::intmc, 1);
  CHECK(guest.interrupts.pin);
  const auto entries = guest.poll(0);
  REQUIRE(entries.size() == 1);
  CHECK(entries[0].command_id == id);
  guest.turn_until_quiet();  // sees the head doorbell
  CHECK_FALSE(guest.interrupts.pin);
}

}  // namespace outboard::nvme::test
