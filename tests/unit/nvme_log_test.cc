#include <doctest/doctest.h>

#include "tests/unit/nvme_guest.h"

namespace outboard::nvme::test {
namespace {

Driver disk() {
  return Driver(one(memory_namespace(1 << 20)));
}

Command log(u32 id, u32 bytes, u64 offset = 0, bool retain = false,
            u32 nsid = kBroadcastNamespace) {
  Command command = Driver::admin(AdminOpcode::get_log_page);
  command.nsid = nsid;
  command.dw10 = (bytes / 4 - 1) << 16 | (retain ? 1u << 15 : 0) | id;
  command.dw11 = (bytes / 4 - 1) >> 16;
  command.dw12 = static_cast<u32>(offset);
  command.dw13 = static_cast<u32>(offset >> 32);
  command.pointer1 = kDataAt;
  command.pointer2 = kDataAt + 4096;
  return command;
}

Command threshold(u32 kelvin) {
  Command command = Driver::admin(AdminOpcode::set_features);
  command.dw10 = 4;
  command.dw11 = kelvin;
  return command;
}

}  // namespace

TEST_CASE("NVMe 1.4 §5.14.1.1 the error log holds failed commands, newest first") {
  Driver guest = disk();
  guest.enable();
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  REQUIRE(guest.run(1, Driver::io(IoOpcode::read, 1, 0x1'0000'0005, 1)).status ==
          Status::lba_out_of_range);
  Command bad = Driver::admin(static_cast<AdminOpcode>(0x7f));
  REQUIRE(guest.run(0, bad).status == Status::invalid_opcode);
  REQUIRE(guest.run(0, log(1, 64 * 64)).status == Status::success);
  const auto data = guest.data();
  CHECK(get<u64>(data, 0) == 2);
  CHECK(get<u16>(data, 8) == 0);
  CHECK(get<u16>(data, 12) == status_field(Status::invalid_opcode));
  CHECK(get<u64>(data, 64) == 1);
  CHECK(get<u16>(data, 64 + 8) == 1);
  CHECK(get<u16>(data, 64 + 12) == status_field(Status::lba_out_of_range));
  CHECK(get<u64>(data, 64 + 16) == 0x1'0000'0005);
  CHECK(get<u32>(data, 64 + 24) == 1);
  CHECK(get<u64>(data, 128) == 0);
  // It holds 64; older ones fall out and the count goes on.
  for (int i = 0; i < 100; ++i) guest.run(0, bad);
  REQUIRE(guest.run(0, log(1, 64 * 64)).status == Status::success);
  CHECK(get<u64>(guest.data(), 0) == 102);
  CHECK(get<u64>(guest.data(), 63 * 64) == 39);
}

TEST_CASE("NVMe 1.4 §5.14.1.2 SMART counts what was done") {
  Driver guest = disk();
  guest.enable();
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  for (int i = 0; i < 3; ++i) guest.run(1, Driver::io(IoOpcode::write, 1, 0, 8));
  guest.run(1, Driver::io(IoOpcode::read, 1, 0, 8));
  REQUIRE(guest.run(0, log(2, 512)).status == Status::success);
  const auto data = guest.data();
  CHECK(get<u8>(data, 0) == 0);
  CHECK(get<u16>(data, 1) == kTemperature);
  CHECK(get<u64>(data, 32) == 1);  // thousands of 512 bytes, rounded up
  CHECK(get<u64>(data, 48) == 1);
  CHECK(get<u64>(data, 64) == 1);
  CHECK(get<u64>(data, 80) == 3);
  CHECK(get<u64>(data, 176) == 0);
}

TEST_CASE("NVMe 1.4 §5.14.1.3 and §5.14.1.5 firmware slots; commands supported and effects") {
  Driver guest = disk();
  guest.enable();
  REQUIRE(guest.run(0, log(3, 512)).status == Status::success);
  CHECK(get<u8>(guest.data(), 0) == 1);
  REQUIRE(guest.run(0, log(5, 4096)).status == Status::success);
  // The log and the controller agree about which commands exist.
  const std::vector<std::byte> effects(guest.data().begin(), guest.data().end());
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  for (u32 opcode = 0; opcode < 256; ++opcode) {
    Command command{};
    command.opcode = static_cast<u8>(opcode);
    command.flags = 1;  // fused: refused by every command that exists
    INFO("opcode " << opcode);
    const bool io = guest.run(1, command).status != Status::invalid_opcode;
    CHECK(io == ((get<u32>(effects, 1024 + 4 * opcode) & 1) != 0));
    command.flags = 0;
    command.nsid = 77;
    command.dw10 = 0xffff'ffff;  // no queue, no page, no feature
    if (static_cast<AdminOpcode>(opcode) == AdminOpcode::async_event_request) continue;
    const bool admin = guest.run(0, command).status != Status::invalid_opcode;
    CHECK(admin == ((get<u32>(effects, 4 * opcode) & 1) != 0));
  }
}

TEST_CASE("NVMe 1.4 §5.14 offsets, lengths and fields of Get Log Page") {
  Driver guest = disk();
  guest.enable();
  REQUIRE(guest.run(0, log(2, 512)).status == Status::success);
  const u16 temperature = get<u16>(guest.data(), 1);
  REQUIRE(guest.run(0, log(2, 8, 0)).status == Status::success);
  CHECK(get<u16>(guest.data(), 1) == temperature);
  REQUIRE(guest.run(0, log(3, 16, 8)).status == Status::success);
  CHECK(guest.data()[0] == std::byte{' '});  // the first revision, offset 8
  // Past the end: zeros, nothing of ours.
  std::memset(guest.data(4096).data(), 0xff, 4096);
  REQUIRE(guest.run(0, log(2, 4096)).status == Status::success);
  CHECK(get<u64>(guest.data(), 512) == 0);
  CHECK(get<u64>(guest.data(), 4088) == 0);
  CHECK(guest.run(0, log(2, 512, 512)).status == Status::success);
  CHECK(guest.run(0, log(2, 512, 516)).status == Status::invalid_field);
  CHECK(guest.run(0, log(2, 512, 2)).status == Status::invalid_field);
  CHECK(guest.run(0, log(2, 512, ~u64{3})).status == Status::invalid_field);
  CHECK(guest.run(0, log(2, 0xffff'fffc)).status == Status::invalid_field);  // above MDTS
  CHECK(guest.run(0, log(2, 512, 0, false, 1)).status == Status::invalid_field);
  for (const u32 id : {0x00u, 0x04u, 0x06u, 0x0cu, 0x70u, 0x80u, 0xc0u, 0xffu}) {
    CHECK(guest.run(0, log(id, 512)).status == Status::invalid_log_page);
  }
}

TEST_CASE("NVMe 1.4 §5.2 an event completes a request once, then waits for the log to be read") {
  Driver guest = disk();
  guest.enable();
  const u16 first = guest.push(0, Driver::admin(AdminOpcode::async_event_request));
  const u16 second = guest.push(0, Driver::admin(AdminOpcode::async_event_request));
  guest.ring(0);
  guest.turn_until_quiet();
  CHECK(guest.poll(0).empty());

  // The temperature is above a threshold that sinks below it.
  const u16 set = guest.push(0, threshold(kTemperature - 1));
  guest.ring(0);
  guest.turn_until_quiet();
  auto entries = guest.poll(0);
  REQUIRE(entries.size() == 2);
  CHECK(entries[0].command_id == set);
  CHECK(entries[1].command_id == first);
  CHECK(entries[1].dw0 == (2u << 16 | 1u << 8 | 1));  // SMART log, temperature, SMART event

  // Masked until the page is read.
  REQUIRE(guest.run(0, threshold(343)).status == Status::success);
  REQUIRE(guest.run(0, threshold(1)).status == Status::success);
  CHECK(guest.poll(0).empty());
  REQUIRE(guest.run(0, log(2, 512, 0, true)).status == Status::success);  // RAE: still masked
  CHECK((get<u8>(guest.data(), 0) & 2) != 0);
  REQUIRE(guest.run(0, threshold(343)).status == Status::success);
  REQUIRE(guest.run(0, threshold(1)).status == Status::success);
  CHECK(guest.poll(0).empty());
  REQUIRE(guest.run(0, log(2, 512)).status == Status::success);
  REQUIRE(guest.run(0, threshold(343)).status == Status::success);
  guest.push(0, threshold(1));
  guest.ring(0);
  guest.turn_until_quiet();
  entries = guest.poll(0);
  REQUIRE(entries.size() == 2);
  CHECK(entries[1].command_id == second);
}

TEST_CASE("NVMe 1.4 §5.2 as many event requests wait as Identify says, and Abort takes one back") {
  Driver guest = disk();
  guest.enable();
  std::vector<u16> ids;
  for (int i = 0; i < 4; ++i) {
    ids.push_back(guest.push(0, Driver::admin(AdminOpcode::async_event_request)));
  }
  guest.ring(0);
  guest.turn_until_quiet();
  CHECK(guest.run(0, Driver::admin(AdminOpcode::async_event_request)).status ==
        Status::async_event_limit_exceeded);
  Command abort = Driver::admin(AdminOpcode::abort);
  abort.dw10 = u32{ids[2]} << 16;
  const u16 id = guest.push(0, abort);
  guest.ring(0);
  guest.turn_until_quiet();
  const auto entries = guest.poll(0);
  REQUIRE(entries.size() == 2);
  CHECK(entries[0].command_id == ids[2]);
  CHECK(Driver::answer(entries[0]).status == Status::abort_requested);
  CHECK(entries[1].command_id == id);
  CHECK((entries[1].dw0 & 1) == 0);
  CHECK((guest.run(0, abort).dw0 & 1) == 1);  // no such command any more
}

TEST_CASE("NVMe 1.4 §5.2 doorbell errors are told by an event") {
  Driver guest = disk();
  guest.enable();
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  for (const auto& [offset, value, info] :
       {std::tuple{8u, 8u, u32{kEventInvalidDoorbellValue}},    // SQ 1 tail: size 8
        std::tuple{12u, 1u, u32{kEventInvalidDoorbellValue}},   // CQ 1 head: nothing posted
        std::tuple{8u * 9, 1u, u32{kEventInvalidDoorbell}}}) {  // SQ 9
    guest.push(0, Driver::admin(AdminOpcode::async_event_request));
    guest.ring(0);
    guest.turn_until_quiet();
    guest.write32(static_cast<u32>(reg::doorbells) + offset, value);
    guest.turn_until_quiet();
    const auto entries = guest.poll(0);
    REQUIRE(entries.size() == 1);
    CHECK(entries[0].dw0 == (1u << 16 | info << 8));
    REQUIRE(guest.run(0, log(1, 64)).status == Status::success);
    guest.turn_until_quiet();
  }
}

}  // namespace outboard::nvme::test
