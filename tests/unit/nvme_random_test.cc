#include <chrono>
#include <cstdlib>
#include <numeric>

#include <doctest/doctest.h>

#include "tests/unit/nvme_random_model.h"

namespace outboard::nvme::test {

// --- the model

std::vector<Model::Part> Model::point_prp(Command& command, u32 length, Fault& fault, u64 slot,
                                          u64 lists, Status& status) {
  const u32 offset = static_cast<u32>(below(1024)) * 4;
  std::vector<u64> pages(kSlotSize / 4096);
  for (u64 i = 0; i < pages.size(); ++i) pages[i] = slot + i * 4096;
  std::shuffle(pages.begin(), pages.end(), random_);
  std::vector<Part> parts;
  u32 left = length;
  for (std::size_t i = 0; left != 0; ++i) {
    const u32 skip = i == 0 ? offset : 0;
    const u32 here = std::min(left, 4096 - skip);
    parts.push_back({pages[i] + skip, here});
    left -= here;
  }
  if (fault == Fault::data_nowhere) {
    parts.back().address = kNowhere;
    status = Status::data_transfer_error;
  }
  command.pointer1 = parts[0].address;
  command.pointer2 = random_();  // ignored unless needed
  if (fault == Fault::first_odd) {
    command.pointer1 |= 1 + below(3);
    status = Status::prp_offset_invalid;
  }
  if (parts.size() == 2) {
    command.pointer2 = parts[1].address;
    if (fault == Fault::second_offset) {
      command.pointer2 += 1 + below(4095);
      status = Status::prp_offset_invalid;
    }
  }
  if (parts.size() > 2) {
    // Sometimes so near the end of a page that the list goes on in the next.
    const u64 count = parts.size() - 1;
    const u64 room = one_in(2) ? 1 + below(count) : 512;
    u64 at = lists + 4096 - room * 8;
    command.pointer2 = at;
    u64 in_page = room;
    const std::size_t bad = fault == Fault::entry_offset ? 1 + below(count) : 0;
    for (std::size_t i = 1; i < parts.size(); ++i) {
      if (in_page == 1 && i + 1 < parts.size()) {
        put<u64>(memory(at, 8), 0, lists + 4096);
        at = lists + 4096;
        in_page = 512;
      }
      put<u64>(memory(at, 8), 0, parts[i].address + (i == bad ? 1 + below(4095) : 0));
      at += 8;
      --in_page;
    }
    if (bad != 0) status = Status::prp_offset_invalid;
    if (fault == Fault::list_odd) {
      command.pointer2 += 1 + below(7);
      status = Status::prp_offset_invalid;
    }
    if (fault == Fault::list_nowhere) {
      command.pointer2 = kNowhere;
      status = Status::data_transfer_error;
    }
  }
  return parts;
}

std::vector<Model::Part> Model::point_sgl(Command& command, u32 length, bool to_guest, Fault& fault,
                                          u64 slot, u64 lists, Status& status) {
  command.flags = static_cast<u8>(command.flags | (one_in(2) ? 0x40 : 0x80));
  // Ascending pieces with gaps; in a read some go nowhere.
  std::vector<Part> parts;
  u32 left = length;
  u64 at = slot + below(64);
  const u64 spare = kSlotSize - 64 - length;
  u64 gaps = 0;
  const u64 pieces = 1 + below(12);
  for (u64 i = 0; left != 0; ++i) {
    const u32 here = i + 1 >= pieces ? left : static_cast<u32>(1 + below(left));
    if (to_guest && one_in(8)) {
      parts.push_back({0, here, true});
    } else {
      const u64 gap = below(std::min<u64>(spare - gaps + 1, 500));
      gaps += gap;
      at += gap;
      parts.push_back({at, here});
      at += here;
    }
    left -= here;
  }
  if (fault == Fault::data_nowhere && !parts.back().bucket) {
    parts.back().address = kNowhere;
    status = Status::data_transfer_error;
  }
  std::vector<SglDescriptor> list;
  for (const Part& part : parts) {
    list.push_back({part.bucket ? random_() : part.address,
                    part.length,
                    {},
                    static_cast<u8>(part.bucket ? 0x10 : 0x00)});
    if (one_in(8)) list.push_back({random_(), 0, {}, 0x00});  // an empty block
  }
  if (!to_guest && one_in(8)) list.push_back({0, 77, {}, 0x10});  // no part of a write
  if (fault == Fault::sgl_type) {
    list[below(list.size())].type = static_cast<u8>(one_in(2) ? 0x01 : 0x40 + below(0xb0));
    status = Status::sgl_type_invalid;
  }
  if (fault == Fault::sgl_short) {
    for (SglDescriptor& d : list) {
      if (d.length != 0 && !(d.type == 0x10 && !to_guest)) {
        --d.length;
        break;
      }
    }
    status = Status::data_sgl_length_invalid;
  } else if (one_in(8)) {
    list.back().length += list.back().length == 0 ? 0 : static_cast<u32>(below(100));  // excess
  }
  SglDescriptor first = list[0];
  const bool segmented = list.size() > 1 || one_in(2);
  if (segmented) {
    const auto place = [&](u64 where, std::span<const SglDescriptor> part) {
      std::memcpy(memory(where, part.size_bytes()).data(), part.data(), part.size_bytes());
    };
    if (fault == Fault::sgl_nested) {
      list.insert(list.begin(), {lists, 16, {}, static_cast<u8>(one_in(2) ? 0x20 : 0x30)});
      status = Status::invalid_sgl_segment;
      place(lists, list);
      first = {lists, static_cast<u32>(list.size() * 16), {}, 0x30};
    } else if (list.size() > 2 && one_in(2)) {
      const std::size_t half = 1 + below(list.size() - 1);
      const auto rest = std::span(list).subspan(half);
      place(lists + 4096, rest);
      list.resize(half + 1);
      list[half] = {lists + 4096, static_cast<u32>(0), {}, 0x30};
      list[half].length = static_cast<u32>((rest.size()) * 16);
      place(lists, list);
      first = {lists, static_cast<u32>(list.size() * 16), {}, 0x20};
    } else {
      place(lists, list);
      first = {lists, static_cast<u32>(list.size() * 16), {}, 0x30};
    }
    if (fault == Fault::sgl_segment) {
      first.length = one_in(2) ? 0 : first.length + 1 + static_cast<u32>(below(15));
      status = Status::invalid_sgl_segment;
    }
    if (fault == Fault::sgl_nowhere) {
      first.address = kNowhere;
      status = Status::data_transfer_error;
    }
  }
  std::memcpy(&command.pointer1, &first, sizeof(first));
  return parts;
}

Command Model::io(u32 index, Expectation& expect) {
  const u64 kind = below(100);
  const IoOpcode opcode = kind < 35   ? IoOpcode::read
                          : kind < 65 ? IoOpcode::write
                          : kind < 75 ? IoOpcode::compare
                          : kind < 88 ? IoOpcode::write_zeroes
                          : kind < 96 ? IoOpcode::dataset_management
                                      : IoOpcode::flush;
  u32 nsid = static_cast<u32>(1 + below(disks.size()));
  const bool writes = opcode == IoOpcode::write || opcode == IoOpcode::write_zeroes ||
                      opcode == IoOpcode::dataset_management;
  while (writes && disks[nsid - 1].read_only) nsid = static_cast<u32>(1 + below(disks.size()));
  const bool moves =
      opcode == IoOpcode::read || opcode == IoOpcode::write || opcode == IoOpcode::compare;
  Disk* disk = &disks[nsid - 1];
  const u64 all = disk->bytes.size() >> disk->shift;
  const u32 most = moves ? (24u << 10) >> disk->shift : static_cast<u32>(all);
  u32 blocks = static_cast<u32>(1 + below(one_in(4) ? most : std::min(most, 8u)));
  u64 start = below(all - blocks + 1);

  Fault fault = Fault::none;
  if (one_in(3)) fault = static_cast<Fault>(1 + below(20));
  expect = {};
  Status& status = expect.status;
  Command command = Driver::io(opcode, nsid, start, blocks);
  if (one_in(4)) command.dw12 |= 1u << 30;  // FUA
  const bool ranged = moves || opcode == IoOpcode::write_zeroes;
  switch (fault) {
    case Fault::nsid:
      command.nsid = one_in(2) ? 0 : static_cast<u32>(disks.size() + 1 + below(1000));
      status = Status::invalid_namespace;
      break;
    case Fault::range:
      if (!ranged) break;
      start = all - blocks + 1 + below(one_in(2) ? 10 : u64{1} << 50);
      status = Status::lba_out_of_range;
      break;
    case Fault::wrap:
      if (!ranged) break;
      start = ~u64{0} - below(blocks);
      status = Status::lba_out_of_range;
      break;
    case Fault::size:
      if (!moves) break;
      command.dw12 |= 0xffff;
      status = Status::invalid_field;
      break;
    case Fault::fuse:
      command.flags = static_cast<u8>(1 + below(3));
      status = Status::invalid_field;
      break;
    case Fault::psdt:
      if (!moves) break;
      command.flags = 0xc0;
      status = Status::invalid_field;
      break;
    case Fault::opcode: {
      static constexpr u8 kNone[] = {0x03, 0x04, 0x06, 0x07, 0x0a, 0x0d, 0x11, 0x7f, 0x80, 0xff};
      command.opcode = kNone[below(std::size(kNone))];
      status = Status::invalid_opcode;
      break;
    }
    case Fault::read_only:
      if (!writes || opcode == IoOpcode::dataset_management) break;
      command.nsid = 3;
      start = 0;
      blocks = 1;
      command.dw12 &= ~0xffffu;
      status = Status::namespace_write_protected;
      break;
    case Fault::directive:
      if (opcode != IoOpcode::write) break;
      command.dw12 |= static_cast<u32>(1 + below(15)) << 20;
      status = Status::invalid_field;
      break;
    default:
      break;
  }
  command.dw10 = static_cast<u32>(start);
  command.dw11 = static_cast<u32>(start >> 32);

  const u64 window = one_in(6) ? kMessageWindow : kDataAt;
  const u64 slot = window + index * kSlotSize;
  const u64 lists = kListsAt + index * 0x2000;
  const u64 length = u64{blocks} << disk->shift;
  const bool doomed = status != Status::success;  // whatever the pointer says

  if (opcode == IoOpcode::flush) {
    if (!doomed && one_in(4)) command.nsid = kBroadcastNamespace;
    return command;
  }
  if (opcode == IoOpcode::write_zeroes) {
    if (one_in(2)) command.dw12 |= 1u << 25;
    if (!doomed)
      std::fill_n(disk->bytes.begin() + static_cast<long>(start << disk->shift), length,
                  std::byte{0});
    return command;
  }
  if (opcode == IoOpcode::dataset_management) {
    std::vector<DatasetRange> ranges(1 + below(one_in(10) ? 256 : 4));
    bool outside = false;
    for (DatasetRange& range : ranges) {
      range.attributes = static_cast<u32>(random_());
      range.blocks = static_cast<u32>(below(std::min<u64>(all, 20) + 1));
      range.start = below(all - range.blocks + 1);
      if (!doomed && one_in(200)) {
        range.start = one_in(2) ? all : ~u64{0} - below(10);
        outside = outside || range.blocks != 0;
      }
    }
    std::memcpy(memory(slot, ranges.size() * 16).data(), ranges.data(), ranges.size() * 16);
    const bool deallocate = !one_in(4);
    command.dw10 = static_cast<u32>(ranges.size() - 1);
    command.dw11 = (deallocate ? 4u : 0u) | static_cast<u32>(below(4));
    command.dw12 = static_cast<u32>(random_());
    command.pointer1 = slot;
    if (!doomed && outside) status = Status::lba_out_of_range;
    if (status == Status::success && deallocate) {
      for (const DatasetRange& range : ranges) {
        std::fill_n(disk->bytes.begin() + static_cast<long>(range.start << disk->shift),
                    u64{range.blocks} << disk->shift, std::byte{0});
      }
    }
    return command;
  }

  // A transfer. The slot starts as noise; what it holds afterwards is known to the byte.
  expect.slot = slot;
  const auto bytes = memory(slot, kSlotSize);
  const u64 noise = random_();
  for (std::size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    const u64 word = noise ^ (i * 0x9e37'79b9'7f4a'7c15);
    std::memcpy(bytes.data() + i, &word, 8);
  }
  Status pointer_status = Status::success;
  Fault pointer_fault = doomed ? Fault::none : fault;
  const auto parts = point(command, static_cast<u32>(length), opcode == IoOpcode::read,
                           pointer_fault, slot, lists, pointer_status);
  if (!doomed) status = pointer_status;
  const auto in_disk =
      std::span(disk->bytes).subspan((doomed ? 0 : start) << disk->shift, doomed ? 0 : length);
  if (!doomed && opcode == IoOpcode::compare && status == Status::success) {
    // Half of them equal, half with one byte changed.
    const bool equal = one_in(2);
    const u64 flip = equal ? length : below(length);
    u64 done = 0;
    for (const Part& part : parts) {
      const auto there = memory(part.address, part.length);
      std::memcpy(there.data(), in_disk.data() + done, part.length);
      if (flip >= done && flip < done + part.length) there[flip - done] ^= std::byte{0x10};
      done += part.length;
    }
    if (!equal) status = Status::compare_failure;
  }
  expect.slot_after.assign(bytes.begin(), bytes.end());
  if (doomed) return command;
  u64 done = 0;
  for (const Part& part : parts) {
    const bool inside = !part.bucket && part.address != kNowhere;
    if (opcode == IoOpcode::write && status == Status::success) {
      std::memcpy(in_disk.data() + done, memory(part.address, part.length).data(), part.length);
    }
    // A read that fails on its last piece has delivered the others.
    const bool delivered = status == Status::success ||
                           (status == Status::data_transfer_error && fault == Fault::data_nowhere);
    if (opcode == IoOpcode::read && delivered && inside) {
      std::memcpy(expect.slot_after.data() + (part.address - slot), in_disk.data() + done,
                  part.length);
    }
    done += part.length;
  }
  return command;
}

std::vector<Model::Part> Model::point(Command& command, u32 length, bool to_guest, Fault& fault,
                                      u64 slot, u64 lists, Status& status) {
  const bool given = (command.flags & 0xc0) != 0;
  if (given || one_in(2)) return point_prp(command, length, fault, slot, lists, status);
  return point_sgl(command, length, to_guest, fault, slot, lists, status);
}

Command Model::garbage(bool admin) {
  Command command;
  for (std::size_t i = 0; i < sizeof(command); i += 8) {
    const u64 word = random_();
    std::memcpy(reinterpret_cast<std::byte*>(&command) + i, &word, 8);
  }
  if (one_in(2)) command.nsid = static_cast<u32>(below(4));
  if (one_in(2)) command.flags = 0;
  // Not what would succeed without a valid pointer and change what the model knows.
  const auto harmful = [&] {
    if (!admin) return command.opcode == static_cast<u8>(IoOpcode::write_zeroes);
    switch (static_cast<AdminOpcode>(command.opcode)) {
      case AdminOpcode::delete_io_sq:
      case AdminOpcode::delete_io_cq:
      case AdminOpcode::format_nvm:
      case AdminOpcode::async_event_request:
        return true;
      default:
        return false;
    }
  };
  if (one_in(2)) command.opcode = static_cast<u8>(below(0x20));
  while (harmful()) command.opcode = static_cast<u8>(random_());
  return command;
}

namespace {

constexpr u32 kDepth = 64;

// --- the run

class Run {
 public:
  explicit Run(u64 seed) : guest(namespaces()), model(guest, seed) {
    guest.dma.add(kMessageWindow, kSlots * kSlotSize, false);
    guest.dma.add(kReadOnlyWindow, 0x10000, true, false);
    model.disks = {{std::vector<std::byte>(256 << 10), 9, false},
                   {std::vector<std::byte>(1 << 20), 12, false},
                   {std::vector<std::byte>(64 << 10), 9, true}};
    start();
  }

  u64 commands = 0;
  std::map<Status, u64> seen;

  void start() {
    guest.enable(kDepth);
    for (u16 id = 1; id <= 3; ++id) REQUIRE(guest.create_pair(id, kDepth, id) == Status::success);
  }

  void burst() {
    const u16 queue = static_cast<u16>(1 + model.below(3));
    const u32 count = static_cast<u32>(1 + model.below(kSlots));
    std::vector<Expectation> expected;
    for (u32 i = 0; i < count; ++i) {
      Expectation expect;
      Command command;
      if (model.one_in(20)) {
        command = model.garbage(false);
        expect.status_known = false;
      } else {
        command = model.io(i, expect);
      }
      const bool alone = command.opcode == static_cast<u8>(IoOpcode::dataset_management);
      if (alone && !expected.empty()) finish(queue, expected);  // its ranges take several steps
      expect.id = guest.push(queue, command);
      expected.push_back(std::move(expect));
      if (alone) finish(queue, expected);
    }
    finish(queue, expected);
  }

  void finish(u16 queue, std::vector<Expectation>& expected) {
    if (expected.empty()) return;
    guest.ring(queue);
    guest.turn_until_quiet();
    const auto entries = guest.poll(queue);
    if (entries.size() != expected.size()) FAIL("as many completions as commands");
    for (const Expectation& expect : expected) {
      const auto entry = std::find_if(entries.begin(), entries.end(), [&](const Completion& e) {
        return e.command_id == expect.id;
      });
      if (entry == entries.end()) FAIL("each command is answered");
      const Status status = Driver::answer(*entry).status;
      ++seen[status];
      ++commands;
      if (expect.status_known && status != expect.status) {
        CAPTURE(commands);
        CHECK(static_cast<u32>(status) == static_cast<u32>(expect.status));
        FAIL("status");
      }
      if (!expect.status_known && status == Status::internal_error) FAIL("garbage");
      if (expect.slot != 0) {
        const auto now = guest.dma.memory(expect.slot, kSlotSize);
        if (std::memcmp(now.data(), expect.slot_after.data(), kSlotSize) != 0) {
          CAPTURE(commands);
          FAIL("guest memory is as the model says, to the byte");
        }
      }
    }
    expected.clear();
  }

  // Admin commands with hostile fields; none may disturb what the I/O queues do.
  void admin() {
    Command command = model.garbage(true);
    Status wanted = Status::success;
    bool known = true;
    switch (model.below(10)) {
      case 0:
        command = Driver::admin(AdminOpcode::identify);
        command.dw10 = 1;
        command.pointer1 = kReadOnlyWindow;
        wanted = Status::data_transfer_error;
        break;
      case 1:
        command = Driver::admin(AdminOpcode::delete_io_sq);
        command.dw10 = static_cast<u32>(4 + model.below(0xfffc));
        wanted = Status::invalid_queue_identifier;
        break;
      case 2:
        command = Driver::admin(AdminOpcode::delete_io_cq);
        command.dw10 = static_cast<u32>(model.below(4));
        wanted =
            command.dw10 == 0 ? Status::invalid_queue_identifier : Status::invalid_queue_deletion;
        break;
      case 3:
        command = Driver::admin(AdminOpcode::create_io_sq);
        command.pointer1 = kNowhere;
        command.dw10 = static_cast<u32>(model.below(1023) + 1) << 16 | 9;
        command.dw11 = 1u << 16 | 1;
        wanted = Status::invalid_field;
        break;
      case 4: {
        // A pair that comes and goes.
        REQUIRE(guest.create_pair(4, kDepth, 4) == Status::success);
        command = Driver::admin(AdminOpcode::delete_io_sq);
        command.dw10 = 4;
        REQUIRE(guest.run(0, command).status == Status::success);
        command.opcode = static_cast<u8>(AdminOpcode::delete_io_cq);
        commands += 3;
        break;
      }
      case 5: {
        // A format that changes the block size of namespace 1 or 2.
        const u32 nsid = static_cast<u32>(1 + model.below(2));
        command = Driver::admin(AdminOpcode::format_nvm);
        command.nsid = nsid;
        command.dw10 = static_cast<u32>(model.below(2)) | static_cast<u32>(model.below(2)) << 9;
        if (!model.one_in(50)) {
          command.nsid = 3;
          wanted = Status::namespace_write_protected;
          break;
        }
        Model::Disk& disk = model.disks[nsid - 1];
        disk.shift = (command.dw10 & 1) != 0 ? 12 : 9;
        std::fill(disk.bytes.begin(), disk.bytes.end(), std::byte{0});
        break;
      }
      default:
        known = false;
        break;
    }
    const Answer answer = guest.run(0, command);
    ++commands;
    ++seen[answer.status];
    if (static_cast<u32>(answer.status) == 0xffff) FAIL("each admin command is answered");
    if (known) REQUIRE(static_cast<u32>(answer.status) == static_cast<u32>(wanted));
  }

  // What a driver may do at any time: reset, doorbells of any value.
  void disturb() {
    if (model.one_in(2)) {
      for (int i = 0; i < 20; ++i) {
        // Any doorbell but the three that would make the controller read stale entries.
        const u32 index = static_cast<u32>(model.below(1024));
        const u32 value = static_cast<u32>(kDepth + model.below(~u32{0} - kDepth));
        guest.write32(reg::doorbells + 4 * index, value);
        guest.controller.turn();
      }
      // The values that are right, again.
      return;
    }
    guest.disable();
    guest.turn_until_quiet();
    REQUIRE(guest.read32(reg::csts) == 0);
    start();
  }

  void check_disks() {
    for (u32 nsid = 1; nsid <= model.disks.size(); ++nsid) {
      const Model::Disk& disk = model.disks[nsid - 1];
      for (u64 at = 0; at < disk.bytes.size(); at += 4096) {
        const Command read = Driver::io(IoOpcode::read, nsid, at >> disk.shift, 4096 >> disk.shift);
        REQUIRE(guest.run(1, read).status == Status::success);
        if (std::memcmp(guest.data().data(), disk.bytes.data() + at, 4096) != 0) {
          FAIL("the disks hold what the model says");
        }
      }
    }
  }

  Driver guest;
  Model model;

 private:
  static std::vector<Namespace> namespaces() {
    std::vector<Namespace> all;
    all.push_back(memory_namespace(256 << 10, 9, 1));
    all.push_back(memory_namespace(1 << 20, 12, 2));
    all.push_back(memory_namespace(64 << 10, 9, 3));
    all.back().read_only = true;
    return all;
  }
};

}  // namespace

// A tenth of it by default; all with OUTBOARD_FULL set.
TEST_CASE("A million random commands, a third of them broken: every status and byte as modelled") {
  const char* full = std::getenv("OUTBOARD_FULL");
  const u64 wanted = full != nullptr && *full != '\0' ? 1'000'000 : 100'000;
  const char* chosen = std::getenv("OUTBOARD_SEED");
  const u64 seed = chosen != nullptr ? std::strtoull(chosen, nullptr, 0) : 20'261'123;
  CAPTURE(seed);
  Run run(seed);
  while (run.commands < wanted) {
    run.burst();
    if (run.model.one_in(8)) run.admin();
    if (run.model.one_in(1000)) run.disturb();
    if (run.model.one_in(5000)) run.check_disks();
  }
  run.check_disks();
  MESSAGE(run.commands << " commands, " << run.seen[Status::success] << " successful, "
                       << run.seen.size() << " different statuses");
  // The stream reaches what it is meant to reach.
  for (const Status status :
       {Status::success, Status::invalid_opcode, Status::invalid_field, Status::data_transfer_error,
        Status::invalid_namespace, Status::invalid_sgl_segment, Status::data_sgl_length_invalid,
        Status::sgl_type_invalid, Status::prp_offset_invalid, Status::namespace_write_protected,
        Status::lba_out_of_range, Status::compare_failure, Status::invalid_queue_identifier,
        Status::invalid_queue_deletion}) {
    CAPTURE(static_cast<u32>(status));
    CHECK(run.seen[status] > wanted / 2000);
  }
  CHECK(run.guest.dma.memory(kReadOnlyWindow, 1)[0] == std::byte{0});
}

}  // namespace outboard::nvme::test
