#include <cerrno>

#include <doctest/doctest.h>

#include "tests/unit/nvme_guest.h"
#include "tests/unit/nvme_held_backend.h"

namespace outboard::nvme::test {
namespace {

using Kind = BackendRequest::Kind;

constexpr u32 kFua = 1u << 30;
constexpr u32 kDeac = 1u << 25;

struct Disk {
  explicit Disk(u64 size = 4 << 20, u32 shift = 9) : backend(new HeldBackend(size)) {
    Namespace ns;
    ns.backend.reset(backend);
    ns.block_shift = shift;
    guest = std::make_unique<Driver>(one(std::move(ns)));
    guest->enable();
    REQUIRE(guest->create_pair(1, 64) == Status::success);
  }
  void fill(u64 bytes, u8 seed) {
    const auto data = guest->data(bytes);
    for (std::size_t i = 0; i < data.size(); ++i) {
      data[i] = static_cast<std::byte>(i * 31 + i / 512 + seed);
    }
  }
  bool filled(u64 bytes, u8 seed) {
    const auto data = guest->data(bytes);
    for (std::size_t i = 0; i < data.size(); ++i) {
      if (data[i] != static_cast<std::byte>(i * 31 + i / 512 + seed)) return false;
    }
    return true;
  }
  bool zeros(u64 bytes) {
    const auto data = guest->data(bytes);
    return std::all_of(data.begin(), data.end(), [](std::byte b) { return b == std::byte{0}; });
  }
  Status run(const Command& command) { return guest->run(1, command).status; }
  void set_cache(bool on) {
    Command set = Driver::admin(AdminOpcode::set_features);
    set.dw10 = 6;
    set.dw11 = on ? 1 : 0;
    REQUIRE(guest->run(0, set).status == Status::success);
  }

  HeldBackend* backend;
  std::unique_ptr<Driver> guest;
};

Command with_dw12(Command command, u32 bits) {
  command.dw12 |= bits;
  return command;
}

Command dataset(std::span<const DatasetRange> ranges, Driver& guest, u32 dw11 = 4) {
  std::memcpy(guest.data(ranges.size_bytes()).data(), ranges.data(), ranges.size_bytes());
  Command command = Driver::io(IoOpcode::dataset_management, 1, 0, 1);
  command.dw10 = static_cast<u32>(ranges.size() - 1);
  command.dw11 = dw11;
  command.dw12 = 0;
  return command;
}

Command format(u32 dw10, u32 nsid = 1) {
  Command command = Driver::admin(AdminOpcode::format_nvm);
  command.nsid = nsid;
  command.dw10 = dw10;
  return command;
}

}  // namespace

TEST_CASE("NVMe 1.4 §6.9 and §6.15 what is written is read, in both block sizes") {
  for (const u32 shift : {9u, 12u}) {
    Disk disk(4 << 20, shift);
    const u32 blocks = 8192u >> shift;
    disk.fill(8192, 1);
    CHECK(disk.run(Driver::io(IoOpcode::write, 1, 5, blocks)) == Status::success);
    disk.fill(8192, 9);
    CHECK(disk.run(Driver::io(IoOpcode::read, 1, 5, blocks)) == Status::success);
    CHECK(disk.filled(8192, 1));
  }
}

TEST_CASE(
    "NVMe 1.4 §6.8 and §6.15.1 Flush reaches the media; FUA and a disabled cache write through") {
  Disk disk;
  CHECK(disk.run(Driver::io(IoOpcode::write, 1, 0, 1)) == Status::success);
  CHECK(disk.run(with_dw12(Driver::io(IoOpcode::write, 1, 0, 1), kFua)) == Status::success);
  CHECK(disk.run(Driver::io(IoOpcode::flush, 1, 0, 1)) == Status::success);
  CHECK(disk.run(Driver::io(IoOpcode::flush, kBroadcastNamespace, 0, 1)) == Status::success);
  CHECK(disk.run(with_dw12(Driver::io(IoOpcode::read, 1, 0, 1), kFua)) == Status::success);
  CHECK(disk.run(with_dw12(Driver::io(IoOpcode::write_zeroes, 1, 0, 1), kFua)) == Status::success);
  CHECK(disk.backend->kinds == std::vector{Kind::write, Kind::write, Kind::flush, Kind::flush,
                                           Kind::flush, Kind::read, Kind::write_zeroes,
                                           Kind::flush});
  CHECK(disk.backend->durable[0] == false);
  CHECK(disk.backend->durable[1] == true);
  disk.backend->kinds.clear();
  disk.backend->durable.clear();
  disk.set_cache(false);
  CHECK(disk.run(Driver::io(IoOpcode::write, 1, 0, 1)) == Status::success);
  CHECK(disk.backend->durable == std::vector{true});
  CHECK(disk.run(Driver::io(IoOpcode::write_zeroes, 1, 0, 1)) == Status::success);
  const DatasetRange range{0, 8, 0};
  CHECK(disk.run(dataset({&range, 1}, *disk.guest)) == Status::success);
  CHECK(disk.backend->kinds ==
        std::vector{Kind::write, Kind::write_zeroes, Kind::flush, Kind::discard, Kind::flush});
}

TEST_CASE("NVMe 1.4 §6.6 Compare tells equal from different, and changes nothing") {
  Disk disk;
  disk.fill(4096, 3);
  CHECK(disk.run(Driver::io(IoOpcode::write, 1, 8, 8)) == Status::success);
  CHECK(disk.run(Driver::io(IoOpcode::compare, 1, 8, 8)) == Status::success);
  CHECK(disk.filled(4096, 3));
  disk.guest->data()[4095] ^= std::byte{1};
  const Answer answer = disk.guest->run(1, Driver::io(IoOpcode::compare, 1, 8, 8));
  CHECK(answer.status == Status::compare_failure);
  CHECK(answer.final);
}

TEST_CASE("NVMe 1.4 §6.16 and §6.7 Write Zeroes and deallocated blocks read as zeros (DLFEAT)") {
  Disk disk;
  disk.fill(8192, 3);
  CHECK(disk.run(Driver::io(IoOpcode::write, 1, 0, 16)) == Status::success);
  CHECK(disk.run(with_dw12(Driver::io(IoOpcode::write_zeroes, 1, 1, 2), kDeac)) == Status::success);
  const DatasetRange ranges[] = {{0, 3, 9}, {0, 0, 0}, {0, 1, 15}};
  CHECK(disk.run(dataset(ranges, *disk.guest)) == Status::success);
  CHECK(disk.run(Driver::io(IoOpcode::read, 1, 0, 16)) == Status::success);
  const std::set<u64> zero = {1, 2, 9, 10, 11, 15};
  const std::vector<std::byte> back(disk.guest->data(8192).begin(), disk.guest->data(8192).end());
  disk.fill(8192, 3);
  for (u64 block = 0; block < 16; ++block) {
    const bool all_zero = std::all_of(back.begin() + static_cast<long>(block) * 512,
                                      back.begin() + static_cast<long>(block) * 512 + 512,
                                      [](std::byte b) { return b == std::byte{0}; });
    CHECK(all_zero == (zero.count(block) == 1));
  }
  // Without the deallocate attribute a range is a hint.
  disk.backend->kinds.clear();
  CHECK(disk.run(dataset(ranges, *disk.guest, 3)) == Status::success);
  CHECK(disk.backend->kinds.empty());
}

TEST_CASE("Bad fields of each I/O command: their status, and no block changes") {
  Disk disk;
  const u64 end = (4 << 20) / 512;
  const DatasetRange outside[] = {{0, 1, 0}, {0, 2, end - 1}};
  const DatasetRange far[] = {{0, 1, ~u64{0}}};
  struct Case {
    const char* what;
    Command command;
    Status status;
  };
  const auto with = [](Command command, auto change) {
    change(command);
    return command;
  };
  std::vector<Case> cases;
  for (const IoOpcode opcode : {IoOpcode::read, IoOpcode::write, IoOpcode::compare}) {
    const Command good = Driver::io(opcode, 1, 0, 8);
    cases.push_back(
        {"namespace 0", with(good, [](Command& c) { c.nsid = 0; }), Status::invalid_namespace});
    cases.push_back(
        {"namespace 2", with(good, [](Command& c) { c.nsid = 2; }), Status::invalid_namespace});
    cases.push_back({"all namespaces", with(good, [](Command& c) { c.nsid = ~0u; }),
                     Status::invalid_namespace});
    cases.push_back(
        {"first block past the end", Driver::io(opcode, 1, end, 1), Status::lba_out_of_range});
    cases.push_back(
        {"last block past the end", Driver::io(opcode, 1, end - 1, 2), Status::lba_out_of_range});
    cases.push_back({"sum wraps", Driver::io(opcode, 1, ~u64{0}, 2), Status::lba_out_of_range});
    cases.push_back({"above MDTS", Driver::io(opcode, 1, 0, 2049), Status::invalid_field});
    cases.push_back({"65536 blocks", Driver::io(opcode, 1, 0, 65536), Status::invalid_field});
    cases.push_back(
        {"fused first", with(good, [](Command& c) { c.flags = 1; }), Status::invalid_field});
    cases.push_back(
        {"fused second", with(good, [](Command& c) { c.flags = 2; }), Status::invalid_field});
    cases.push_back(
        {"PSDT 3", with(good, [](Command& c) { c.flags = 0xc0; }), Status::invalid_field});
    cases.push_back(
        {"PRP1 odd", with(good, [](Command& c) { c.pointer1 += 1; }), Status::prp_offset_invalid});
    cases.push_back({"PRP2 with an offset",
                     with(Driver::io(opcode, 1, 0, 16), [](Command& c) { c.pointer2 += 512; }),
                     Status::prp_offset_invalid});
    cases.push_back({"list odd",
                     with(Driver::io(opcode, 1, 0, 64), [](Command& c) { c.pointer2 += 4; }),
                     Status::prp_offset_invalid});
    cases.push_back({"list nowhere",
                     with(Driver::io(opcode, 1, 0, 64), [](Command& c) { c.pointer2 = 0x1000; }),
                     Status::data_transfer_error});
    if (opcode == IoOpcode::read) continue;
    cases.push_back({"data nowhere", with(good, [](Command& c) { c.pointer1 = 0x1000; }),
                     Status::data_transfer_error});
  }
  const Command write = Driver::io(IoOpcode::write, 1, 0, 8);
  cases.push_back(
      {"directive", with(write, [](Command& c) { c.dw12 |= 1u << 20; }), Status::invalid_field});
  const Command zeroes = Driver::io(IoOpcode::write_zeroes, 1, 0, 8);
  cases.push_back({"zeroes: namespace", with(zeroes, [](Command& c) { c.nsid = 9; }),
                   Status::invalid_namespace});
  cases.push_back({"zeroes: range", Driver::io(IoOpcode::write_zeroes, 1, end - 7, 8),
                   Status::lba_out_of_range});
  cases.push_back(
      {"zeroes: fused", with(zeroes, [](Command& c) { c.flags = 1; }), Status::invalid_field});
  cases.push_back(
      {"flush: namespace 0", Driver::io(IoOpcode::flush, 0, 0, 1), Status::invalid_namespace});
  cases.push_back(
      {"flush: namespace 2", Driver::io(IoOpcode::flush, 2, 0, 1), Status::invalid_namespace});
  cases.push_back({"flush: fused",
                   with(Driver::io(IoOpcode::flush, 1, 0, 1), [](Command& c) { c.flags = 1; }),
                   Status::invalid_field});
  for (const int opcode :
       {0x03, 0x04, 0x06, 0x07, 0x0a, 0x0c, 0x0d, 0x11, 0x15, 0x7f, 0x80, 0xff}) {
    cases.push_back({"no such command",
                     with(write, [&](Command& c) { c.opcode = static_cast<u8>(opcode); }),
                     Status::invalid_opcode});
  }
  for (const Case& c : cases) {
    INFO(c.what << ", opcode " << c.command.opcode);
    const Answer answer = disk.guest->run(1, c.command);
    CHECK(answer.status == c.status);
    CHECK(answer.final);
  }
  CHECK(disk.run(dataset(outside, *disk.guest)) == Status::lba_out_of_range);
  CHECK(disk.run(dataset(far, *disk.guest)) == Status::lba_out_of_range);
  Command list = dataset(outside, *disk.guest);
  list.pointer1 = 0x1000;
  CHECK(disk.run(list) == Status::data_transfer_error);
  list.pointer1 = kDataAt;
  list.nsid = 4;
  CHECK(disk.run(list) == Status::invalid_namespace);
  // Only the comparison with a buffer that is nowhere had read its blocks before it found out.
  CHECK(disk.backend->kinds == std::vector{Kind::read});
  // A read whose target is nowhere: the backend may be asked, the guest's memory is not touched.
  Command read = Driver::io(IoOpcode::read, 1, 0, 8);
  read.pointer1 = 0x1000;
  CHECK(disk.run(read) == Status::data_transfer_error);
  CHECK(disk.guest->controller.namespaces()[0].in_flight == 0);
}

TEST_CASE("NVMe 1.4 §5.15.2.1 NSATTR: a write-protected namespace refuses what would change it") {
  std::vector<Namespace> all = one(memory_namespace(1 << 20));
  all[0].read_only = true;
  Driver guest(std::move(all));
  guest.enable();
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  CHECK(guest.run(1, Driver::io(IoOpcode::read, 1, 0, 1)).status == Status::success);
  CHECK(guest.run(1, Driver::io(IoOpcode::compare, 1, 0, 1)).status != Status::invalid_field);
  CHECK(guest.run(1, Driver::io(IoOpcode::flush, 1, 0, 1)).status == Status::success);
  CHECK(guest.run(1, Driver::io(IoOpcode::write, 1, 0, 1)).status ==
        Status::namespace_write_protected);
  CHECK(guest.run(1, Driver::io(IoOpcode::write_zeroes, 1, 0, 1)).status ==
        Status::namespace_write_protected);
  const DatasetRange range{0, 1, 0};
  CHECK(guest.run(1, dataset({&range, 1}, guest)).status == Status::namespace_write_protected);
  CHECK(guest.run(0, format(0)).status == Status::namespace_write_protected);
}

TEST_CASE("A backend's error is the NVMe status that says so") {
  struct Case {
    int error;
    Status read, write;
    bool final;
  };
  const Case cases[] = {
      {EIO, Status::unrecovered_read, Status::write_fault, true},
      {ENOSPC, Status::capacity_exceeded, Status::capacity_exceeded, true},
      {EROFS, Status::unrecovered_read, Status::namespace_write_protected, true},
      {ENOMEM, Status::internal_error, Status::internal_error, false},
  };
  for (const Case& c : cases) {
    INFO("errno " << c.error);
    Disk disk;
    disk.backend->fail_with = c.error;
    const Answer read = disk.guest->run(1, Driver::io(IoOpcode::read, 1, 0, 1));
    CHECK(read.status == c.read);
    CHECK(read.final == c.final);
    for (const IoOpcode opcode : {IoOpcode::write, IoOpcode::write_zeroes, IoOpcode::flush}) {
      CHECK(disk.guest->run(1, Driver::io(opcode, 1, 0, 1)).status == c.write);
    }
    CHECK(disk.guest->controller.namespaces()[0].in_flight == 0);
  }
}

TEST_CASE("Guest buffers that a backend cannot use are copied through one that it can") {
  Disk disk;
  disk.backend->alignment = 512;
  disk.fill(8192, 5);
  const std::vector<std::byte> wanted(disk.guest->data(4096, 4).begin(),
                                      disk.guest->data(4096, 4).end());
  Command write = Driver::io(IoOpcode::write, 1, 0, 8);
  write.pointer1 += 4;
  CHECK(disk.run(write) == Status::success);
  CHECK(disk.guest->controller.counters().bounced == 1);
  std::memset(disk.guest->data(8192).data(), 0, 8192);
  Command read = Driver::io(IoOpcode::read, 1, 0, 8);
  read.pointer1 += 8;
  CHECK(disk.run(read) == Status::success);
  CHECK(std::equal(wanted.begin(), wanted.end(), disk.guest->data(4096, 8).begin()));
}

TEST_CASE("NVMe 1.4 §5.23 Format NVM erases and changes the block size") {
  Disk disk(4 << 20);
  Driver& guest = *disk.guest;
  disk.fill(4096, 1);
  REQUIRE(disk.run(Driver::io(IoOpcode::write, 1, 0, 8)) == Status::success);
  CHECK(guest.run(0, format(1)).status == Status::success);
  CHECK(guest.controller.namespaces()[0].block_size() == 4096);
  CHECK(disk.backend->block_size == 4096);
  CHECK(disk.run(Driver::io(IoOpcode::read, 1, 0, 1)) == Status::success);
  CHECK(disk.zeros(4096));
  CHECK(disk.run(Driver::io(IoOpcode::read, 1, 1024, 1)) == Status::lba_out_of_range);
  disk.fill(4096, 1);
  REQUIRE(disk.run(Driver::io(IoOpcode::write, 1, 1023, 1)) == Status::success);
  CHECK(guest.run(0, format(1u << 9, kBroadcastNamespace)).status == Status::success);  // SES 1
  CHECK(guest.controller.namespaces()[0].block_size() == 512);
  CHECK(disk.run(Driver::io(IoOpcode::read, 1, 8184, 8)) == Status::success);
  CHECK(disk.zeros(4096));

  CHECK(guest.run(0, format(2)).status == Status::invalid_format);
  CHECK(guest.run(0, format(0xf)).status == Status::invalid_format);
  CHECK(guest.run(0, format(1u << 5)).status == Status::invalid_format);  // protection type 1
  CHECK(guest.run(0, format(2u << 9)).status == Status::invalid_field);   // cryptographic erase
  CHECK(guest.run(0, format(0, 0)).status == Status::invalid_namespace);
  CHECK(guest.run(0, format(0, 2)).status == Status::invalid_namespace);
  Disk odd((4 << 20) + 512);
  CHECK(odd.guest->run(0, format(1)).status == Status::invalid_format);
}

TEST_CASE("NVMe 1.4 §5.23 Format waits for commands in flight and refuses new ones meanwhile") {
  Disk disk;
  Driver& guest = *disk.guest;
  disk.backend->hold = true;
  const auto turns = [&] {
    for (int i = 0; i < 10; ++i) guest.controller.turn();
  };
  guest.push(1, Driver::io(IoOpcode::write, 1, 0, 8));
  guest.ring(1);
  turns();
  guest.push(0, format(1));
  guest.ring(0);
  turns();
  CHECK(disk.backend->kinds == std::vector{Kind::write});
  guest.push(1, Driver::io(IoOpcode::write, 1, 0, 8));
  guest.ring(1);
  guest.push(0, format(0));
  guest.ring(0);
  turns();
  auto entries = guest.poll(1);
  REQUIRE(entries.size() == 1);
  CHECK(Driver::answer(entries[0]).status == Status::format_in_progress);
  CHECK_FALSE(Driver::answer(entries[0]).final);
  entries = guest.poll(0);
  REQUIRE(entries.size() == 1);
  CHECK(Driver::answer(entries[0]).status == Status::format_in_progress);
  // A window change in the middle of it does not wait for all of it.
  disk.backend->allowed = 1;
  turns();
  CHECK(disk.backend->kinds.back() == Kind::write_zeroes);
  guest.controller.before_window_change();
  CHECK(guest.controller.namespaces()[0].formatting);
  disk.backend->hold = false;
  turns();
  CHECK(Driver::answer(guest.poll(1).at(0)).status == Status::success);
  CHECK(Driver::answer(guest.poll(0).at(0)).status == Status::success);
  CHECK(disk.run(Driver::io(IoOpcode::read, 1, 0, 1)) == Status::success);

  // A reset in the middle of one: the namespace is usable again afterwards.
  disk.backend->hold = true;
  guest.push(0, format(0));
  guest.ring(0);
  turns();
  guest.disable();
  disk.backend->hold = false;
  turns();
  CHECK(guest.read32(reg::csts) == 0);
  guest.enable();
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  CHECK(disk.run(Driver::io(IoOpcode::read, 1, 0, 1)) == Status::success);
}

}  // namespace outboard::nvme::test
