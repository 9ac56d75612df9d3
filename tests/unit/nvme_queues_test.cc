#include <doctest/doctest.h>

#include "tests/unit/nvme_guest.h"
#include "tests/unit/nvme_held_backend.h"

namespace outboard::nvme::test {
namespace {

struct Held {
  Held() : backend(new HeldBackend(1 << 20)), guest(one(wrap(backend))) { backend->hold = true; }
  static Namespace wrap(HeldBackend* backend) {
    Namespace ns;
    ns.backend.reset(backend);
    return ns;
  }
  // Turns without waiting for what is held.
  void turns(int count = 10) {
    for (int i = 0; i < count; ++i) guest.controller.turn();
  }
  HeldBackend* backend;  // the controller's
  Driver guest;
};

Command delete_queue(AdminOpcode opcode, u16 id) {
  Command command = Driver::admin(opcode);
  command.dw10 = id;
  return command;
}

}  // namespace

TEST_CASE("NVMe 1.4 §3.1.1 MQES: 64 pairs of queues of 1024 entries work, all full at once") {
  Driver guest(one(memory_namespace(1 << 20)));
  guest.enable();
  for (u16 id = 1; id <= 64; ++id) REQUIRE(guest.create_pair(id, 1024, id) == Status::success);
  for (u16 id = 1; id <= 64; ++id) {
    for (int i = 0; i < 1023; ++i) guest.push(id, Driver::io(IoOpcode::read, 1, 0, 1));
    guest.ring(id);
  }
  guest.turn_until_quiet();
  for (u16 id = 1; id <= 64; ++id) {
    const auto entries = guest.poll(id);
    CHECK(entries.size() == 1023);
    for (const Completion& entry : entries) {
      if (Driver::answer(entry).status != Status::success) FAIL("status");
    }
    CHECK(guest.interrupts.raised[id] > 0);
  }
}

TEST_CASE("NVMe 1.4 §4.6 entries are never overwritten: completions wait for room, in order") {
  Driver guest(one(memory_namespace(1 << 20)));
  guest.enable();
  // A long submission queue on a completion queue of two entries.
  REQUIRE(guest.create_pair(1, 2) == Status::success);
  Command sq = Driver::admin(AdminOpcode::create_io_sq);
  sq.pointer1 = Driver::queue_at(2, false);
  sq.dw10 = 63u << 16 | 2;
  sq.dw11 = 1u << 16 | 1;
  REQUIRE(guest.run(0, sq).status == Status::success);
  for (u16 i = 0; i < 40; ++i) {
    Command read = Driver::io(IoOpcode::read, 1, 0, 1);
    read.id = static_cast<u16>(0x100 + i);
    std::memcpy(guest.dma.memory(Driver::queue_at(2, false) + 64u * i, 64).data(), &read, 64);
  }
  guest.write32(reg::doorbells + 8 * 2, 40);
  for (u16 i = 0; i < 40; ++i) {
    guest.turn_until_quiet();
    const auto entries = guest.poll(1);
    REQUIRE(entries.size() == 1);
    CHECK(entries[0].command_id == 0x100 + i);
    CHECK(entries[0].sq_id == 2);
  }
  guest.turn_until_quiet();
  CHECK(guest.poll(1).empty());
}

TEST_CASE("NVMe 1.4 §5.3 to §5.6 bad fields of queue creation and deletion") {
  Driver guest(one(memory_namespace(1 << 20)));
  guest.enable();
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  Command cq = Driver::admin(AdminOpcode::create_io_cq);
  cq.pointer1 = Driver::queue_at(2, true);
  cq.dw10 = 7u << 16 | 2;
  cq.dw11 = 3;
  Command sq = Driver::admin(AdminOpcode::create_io_sq);
  sq.pointer1 = Driver::queue_at(2, false);
  sq.dw10 = 7u << 16 | 2;
  sq.dw11 = 1u << 16 | 1;
  const auto with = [](Command command, auto change) {
    change(command);
    return command;
  };
  struct Case {
    const char* what;
    Command command;
    Status status;
  };
  const Case cases[] = {
      {"CQ 0", with(cq, [](Command& c) { c.dw10 = 7u << 16; }), Status::invalid_queue_identifier},
      {"CQ 65", with(cq, [](Command& c) { c.dw10 = 7u << 16 | 65; }),
       Status::invalid_queue_identifier},
      {"CQ exists", with(cq, [](Command& c) { c.dw10 = 7u << 16 | 1; }),
       Status::invalid_queue_identifier},
      {"CQ of one", with(cq, [](Command& c) { c.dw10 = 2; }), Status::invalid_queue_size},
      {"CQ of 1025", with(cq, [](Command& c) { c.dw10 = 1024u << 16 | 2; }),
       Status::invalid_queue_size},
      {"CQ scattered", with(cq, [](Command& c) { c.dw11 = 2; }), Status::invalid_field},
      {"CQ vector 65", with(cq, [](Command& c) { c.dw11 = 65u << 16 | 3; }),
       Status::invalid_interrupt_vector},
      {"CQ base unaligned", with(cq, [](Command& c) { c.pointer1 += 8; }),
       Status::prp_offset_invalid},
      {"CQ base nowhere", with(cq, [](Command& c) { c.pointer1 = 0x1000; }), Status::invalid_field},
      {"CQ base at the end of the world", with(cq, [](Command& c) { c.pointer1 = ~u64{0xfff}; }),
       Status::invalid_field},
      {"SQ 0", with(sq, [](Command& c) { c.dw10 = 7u << 16; }), Status::invalid_queue_identifier},
      {"SQ exists", with(sq, [](Command& c) { c.dw10 = 7u << 16 | 1; }),
       Status::invalid_queue_identifier},
      {"SQ of one", with(sq, [](Command& c) { c.dw10 = 2; }), Status::invalid_queue_size},
      {"SQ of 65536", with(sq, [](Command& c) { c.dw10 = 0xffff'0002; }),
       Status::invalid_queue_size},
      {"SQ scattered", with(sq, [](Command& c) { c.dw11 = 1u << 16; }), Status::invalid_field},
      {"SQ to CQ 0", with(sq, [](Command& c) { c.dw11 = 1; }), Status::invalid_queue_identifier},
      {"SQ to CQ 2", with(sq, [](Command& c) { c.dw11 = 2u << 16 | 1; }),
       Status::completion_queue_invalid},
      {"SQ to CQ 65535", with(sq, [](Command& c) { c.dw11 = 0xffff'0001; }),
       Status::invalid_queue_identifier},
      {"SQ base unaligned", with(sq, [](Command& c) { c.pointer1 += 0x800; }),
       Status::prp_offset_invalid},
      {"SQ base nowhere", with(sq, [](Command& c) { c.pointer1 = 0; }), Status::invalid_field},
      {"delete SQ 0", delete_queue(AdminOpcode::delete_io_sq, 0), Status::invalid_queue_identifier},
      {"delete SQ 2", delete_queue(AdminOpcode::delete_io_sq, 2), Status::invalid_queue_identifier},
      {"delete SQ 65535", delete_queue(AdminOpcode::delete_io_sq, 0xffff),
       Status::invalid_queue_identifier},
      {"delete CQ 0", delete_queue(AdminOpcode::delete_io_cq, 0), Status::invalid_queue_identifier},
      {"delete CQ 65535", delete_queue(AdminOpcode::delete_io_cq, 0xffff),
       Status::invalid_queue_identifier},
      {"delete CQ in use", delete_queue(AdminOpcode::delete_io_cq, 1),
       Status::invalid_queue_deletion},
      {"SGL on an admin command", with(cq, [](Command& c) { c.flags = 0x40; }),
       Status::invalid_field},
      {"fused admin command", with(cq, [](Command& c) { c.flags = 1; }), Status::invalid_field},
  };
  for (const Case& c : cases) {
    INFO(c.what);
    const Answer answer = guest.run(0, c.command);
    CHECK(answer.status == c.status);
    CHECK(answer.final);
  }
  CHECK(guest.run(0, cq).status == Status::success);
  CHECK(guest.run(0, sq).status == Status::success);
  CHECK(guest.run(0, delete_queue(AdminOpcode::delete_io_sq, 2)).status == Status::success);
  CHECK(guest.run(0, delete_queue(AdminOpcode::delete_io_cq, 2)).status == Status::success);
}

TEST_CASE("NVMe 1.4 §5.6 a submission queue goes once its commands are answered") {
  Held held;
  Driver& guest = held.guest;
  guest.enable();
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  const u16 first = guest.push(1, Driver::io(IoOpcode::read, 1, 0, 1));
  guest.ring(1);
  held.turns();
  CHECK(held.backend->held.size() == 1);
  guest.push(0, delete_queue(AdminOpcode::delete_io_sq, 1));
  guest.ring(0);
  held.turns();
  CHECK(guest.poll(0).empty());
  // It fetches nothing more, and cannot be deleted twice.
  guest.push(1, Driver::io(IoOpcode::read, 1, 0, 1));
  guest.ring(1);
  guest.push(0, delete_queue(AdminOpcode::delete_io_sq, 1));
  guest.ring(0);
  held.turns();
  CHECK(held.backend->held.size() == 1);
  auto entries = guest.poll(0);
  REQUIRE(entries.size() == 1);
  CHECK(Driver::answer(entries[0]).status == Status::invalid_queue_identifier);

  held.backend->hold = false;
  held.turns();
  entries = guest.poll(1);
  REQUIRE(entries.size() == 1);
  CHECK(entries[0].command_id == first);
  entries = guest.poll(0);
  REQUIRE(entries.size() == 1);
  CHECK(Driver::answer(entries[0]).status == Status::success);
  CHECK(guest.run(0, delete_queue(AdminOpcode::delete_io_cq, 1)).status == Status::success);
}

TEST_CASE("NVMe 1.4 §7.3.2 after CC.EN 0, RDY stays until no backend can touch guest memory") {
  Held held;
  Driver& guest = held.guest;
  guest.enable();
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  for (int i = 0; i < 3; ++i) guest.push(1, Driver::io(IoOpcode::read, 1, 0, 1));
  guest.ring(1);
  held.turns();
  REQUIRE(held.backend->held.size() == 3);
  guest.push(0, Driver::admin(AdminOpcode::async_event_request));
  guest.ring(0);
  held.turns();
  guest.disable();
  held.turns();
  CHECK(guest.read32(reg::csts) == kCstsReady);
  held.backend->allowed = 2;
  held.turns();
  CHECK(guest.read32(reg::csts) == kCstsReady);
  held.backend->hold = false;
  held.turns();
  CHECK(guest.read32(reg::csts) == 0);
  CHECK(guest.poll(1).empty());  // dropped, not answered
  CHECK(guest.poll(0).empty());
  CHECK(guest.controller.namespaces()[0].in_flight == 0);
  guest.enable();
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  CHECK(guest.run(1, Driver::io(IoOpcode::read, 1, 0, 1)).status == Status::success);
}

TEST_CASE("CC.EN set again before RDY went down: the controller comes up once it is empty") {
  Held held;
  Driver& guest = held.guest;
  guest.enable();
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  guest.push(1, Driver::io(IoOpcode::read, 1, 0, 1));
  guest.ring(1);
  held.turns();
  guest.disable();
  guest.enable();
  held.turns();
  CHECK_FALSE(guest.state.sq[1].live);
  held.backend->hold = false;
  held.turns();
  CHECK(guest.read32(reg::csts) == kCstsReady);
  CHECK(guest.create_pair(1, 8) == Status::success);
}

TEST_CASE("A window that goes, and a device reset, wait for what the backend has") {
  for (const bool reset : {false, true}) {
    INFO("reset " << reset);
    Held held;
    Driver& guest = held.guest;
    guest.dma.add(0x1000'0000, 0x1'0000);
    guest.enable();
    REQUIRE(guest.create_pair(1, 8) == Status::success);
    for (int i = 0; i < 5; ++i) {
      Command read = Driver::io(IoOpcode::read, 1, 0, 8);
      read.pointer1 = 0x1000'0000;
      guest.push(1, read);
    }
    guest.ring(1);
    held.turns();
    REQUIRE(held.backend->held.size() == 5);
    if (reset) {
      guest.controller.reset();
    } else {
      guest.controller.before_window_change();
    }
    CHECK(held.backend->held.empty());
    CHECK_FALSE(guest.controller.io_in_flight());
    guest.dma.remove(0x1000'0000);  // its memory is freed: an access would be found
    if (reset) {
      CHECK(guest.read32(reg::csts) == 0);
      continue;
    }
    CHECK(guest.poll(1).size() == 5);
    held.backend->hold = false;
    Command read = Driver::io(IoOpcode::read, 1, 0, 8);
    read.pointer1 = 0x1000'0000;
    CHECK(guest.run(1, read).status == Status::data_transfer_error);
    CHECK(guest.run(1, Driver::io(IoOpcode::read, 1, 0, 8)).status == Status::success);
  }
}

TEST_CASE("Queues and data in windows that only messages reach work like mapped ones") {
  Driver guest(one(memory_namespace(1 << 20)));
  guest.dma.remove(kRam);
  guest.dma.add(kRam, kRamSize, false);
  guest.enable();
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  for (std::size_t i = 0; i < 8192; ++i) guest.data(8192)[i] = static_cast<std::byte>(i * 7);
  const std::vector<std::byte> written(guest.data(8192).begin(), guest.data(8192).end());
  CHECK(guest.run(1, Driver::io(IoOpcode::write, 1, 3, 16)).status == Status::success);
  std::memset(guest.data(8192).data(), 0, 8192);
  CHECK(guest.run(1, Driver::io(IoOpcode::read, 1, 3, 16)).status == Status::success);
  CHECK(std::equal(written.begin(), written.end(), guest.data(8192).begin()));
  CHECK(guest.controller.counters().bounced == 2);
}

TEST_CASE("NVMe 1.4 §4.2 a command id that is in flight is not used again") {
  Held held;
  Driver& guest = held.guest;
  guest.enable();
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  Command read = Driver::io(IoOpcode::read, 1, 0, 1);
  read.id = 77;
  for (u16 i = 0; i < 2; ++i) {
    std::memcpy(guest.dma.memory(Driver::queue_at(1, false) + 64u * i, 64).data(), &read, 64);
  }
  guest.write32(reg::doorbells + 8, 2);
  held.turns();
  const auto entries = guest.poll(1);
  REQUIRE(entries.size() == 1);
  CHECK(Driver::answer(entries[0]).status == Status::command_id_conflict);
  held.backend->hold = false;
  held.turns();
  CHECK(guest.poll(1).size() == 1);
}

TEST_CASE("One turn does a bounded amount of work, and every queue has its share") {
  Driver guest(one(memory_namespace(1 << 20)));
  guest.enable();
  for (u16 id = 1; id <= 4; ++id) {
    REQUIRE(guest.create_pair(id, 1024, id) == Status::success);
  }
  for (u16 id = 1; id <= 4; ++id) {
    for (int i = 0; i < 1000; ++i) guest.push(id, Driver::io(IoOpcode::flush, 1, 0, 1));
    guest.ring(id);
  }
  guest.controller.turn();
  for (u16 id = 1; id <= 4; ++id) CHECK(guest.poll(id, false).size() == 64);
  guest.turn_until_quiet();
  for (u16 id = 1; id <= 4; ++id) guest.poll(id);
  // Of the largest transfers fewer: 32 MiB in all.
  for (int i = 0; i < 60; ++i) {
    Command read = Driver::io(IoOpcode::read, 1, 0, 2048);
    read.flags = 0x40;  // SGL: one block
    read.pointer2 = 1 << 20;
    guest.push(1, read);
  }
  guest.ring(1);
  guest.controller.turn();
  CHECK(guest.poll(1).size() == 32);
}

}  // namespace outboard::nvme::test
