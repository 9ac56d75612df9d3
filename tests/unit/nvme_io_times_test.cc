// The server's own clock of a guest's boot, by which every VMM is compared.
#include <doctest/doctest.h>

#include "tests/unit/nvme_guest.h"

namespace outboard::nvme::test {

TEST_CASE("the first I/O doorbell, fetch and read are stamped once, in that order") {
  Driver guest(one(memory_namespace(1 << 20)));
  guest.controller.io_clock().connected();
  guest.enable();
  REQUIRE(guest.create_pair(1, 16) == Status::success);
  IoClock& clock = guest.controller.io_clock();
  CHECK(clock.times().enabled != 0);
  CHECK(clock.times().doorbell == 0);  // the admin queue's do not count
  CHECK_FALSE(clock.take_news());
  REQUIRE(guest.run(1, Driver::io(IoOpcode::write, 1, 0, 1)).status == Status::success);
  CHECK(clock.times().fetched != 0);
  CHECK(clock.times().read == 0);
  REQUIRE(guest.run(1, Driver::io(IoOpcode::read, 1, 0, 1)).status == Status::success);
  const IoTimes first = clock.times();
  CHECK(first.connected <= first.enabled);
  CHECK(first.enabled <= first.doorbell);
  CHECK(first.doorbell <= first.fetched);
  CHECK(first.fetched <= first.read);
  CHECK(first.interrupt);
  CHECK(clock.take_news());
  REQUIRE(guest.run(1, Driver::io(IoOpcode::read, 1, 0, 1)).status == Status::success);
  CHECK(clock.times().read == first.read);
  CHECK_FALSE(clock.take_news());
}

TEST_CASE("a failed read is no first read") {
  Driver guest(one(memory_namespace(1 << 20)));
  guest.enable();
  REQUIRE(guest.create_pair(1, 16) == Status::success);
  CHECK(guest.run(1, Driver::io(IoOpcode::read, 1, 1 << 20, 1)).status != Status::success);
  CHECK(guest.controller.io_clock().times().read == 0);
}

TEST_CASE("each enabling of the controller starts anew: firmware's read is not the kernel's") {
  Driver guest(one(memory_namespace(1 << 20)));
  guest.controller.io_clock().connected();
  const u64 connected = guest.controller.io_clock().times().connected;
  guest.enable();
  REQUIRE(guest.create_pair(1, 16) == Status::success);
  REQUIRE(guest.run(1, Driver::io(IoOpcode::read, 1, 0, 1)).status == Status::success);
  guest.disable();
  guest.turn_until_quiet();
  guest.enable();
  const IoTimes& times = guest.controller.io_clock().times();
  CHECK(times.connected == connected);
  CHECK(times.doorbell == 0);
  CHECK(times.read == 0);
  REQUIRE(guest.create_pair(1, 16) == Status::success);
  REQUIRE(guest.run(1, Driver::io(IoOpcode::read, 1, 0, 1)).status == Status::success);
  CHECK(times.read > times.enabled);
}

TEST_CASE("the line names every time in nanoseconds") {
  CHECK(io_times_json({1, 2, 3, 4, 5, true}) ==
        R"({"connected_ns": 1, "enabled_ns": 2, "doorbell_ns": 3, "fetched_ns": 4, "read_ns": 5, )"
        R"("interrupt": true})");
}

}  // namespace outboard::nvme::test
