#include <doctest/doctest.h>

#include "tests/unit/nvme_guest.h"

namespace outboard::nvme::test {
namespace {

struct Setup {
  Setup() { dma.add(kRam, kRamSize); }
  void put_list(u64 at, const std::vector<u64>& entries) {
    std::memcpy(dma.memory(at, entries.size() * 8).data(), entries.data(), entries.size() * 8);
  }
  void put_segment(u64 at, const std::vector<SglDescriptor>& entries) {
    std::memcpy(dma.memory(at, entries.size() * 16).data(), entries.data(), entries.size() * 16);
  }
  Status prp(u64 first, u64 second, u64 length, u32 page = 4096) {
    Command command{};
    command.pointer1 = first;
    command.pointer2 = second;
    return data.resolve(command, length, page, Access::write, dma);
  }
  Status sgl(const SglDescriptor& descriptor, u64 length, Access towards = Access::write) {
    Command command{};
    command.flags = 0x40;
    std::memcpy(&command.pointer1, &descriptor, sizeof(descriptor));
    return data.resolve(command, length, 4096, towards, dma);
  }
  u64 total() const {
    u64 sum = 0;
    for (const Piece& piece : data.pieces) sum += piece.length;
    return sum;
  }
  FakeDma dma;
  DataPointer data;
};

SglDescriptor block(u64 address, u32 length) {
  return {address, length, {}, 0x00};
}
SglDescriptor bucket(u32 length) {
  return {0, length, {}, 0x10};
}
SglDescriptor segment(u64 address, u32 count) {
  return {address, count * 16, {}, 0x20};
}
SglDescriptor last(u64 address, u32 count) {
  return {address, count * 16, {}, 0x30};
}

}  // namespace

TEST_CASE("NVMe 1.4 §4.3 one page, two pages, a list; an offset in the first only") {
  Setup s;
  CHECK(s.prp(kDataAt + 512, 0xdead, 3584) == Status::success);  // PRP2 is not looked at
  CHECK(s.data.pieces.size() == 1);
  CHECK(s.prp(kDataAt + 512, kDataAt + 8192, 4096) == Status::success);
  REQUIRE(s.data.pieces.size() == 2);
  CHECK(s.data.pieces[0].length == 3584);
  CHECK(s.data.pieces[1].address == kDataAt + 8192);
  CHECK(s.data.pieces[1].length == 512);
  CHECK(s.data.direct);
  s.put_list(kListsAt + 64, {kDataAt + 0x5000, kDataAt + 0x3000});
  CHECK(s.prp(kDataAt + 512, kListsAt + 64, 3584 + 4096 + 100) == Status::success);
  REQUIRE(s.data.pieces.size() == 3);
  CHECK(s.data.pieces[1].address == kDataAt + 0x5000);
  CHECK(s.data.pieces[2].length == 100);
  // Neighbours are one piece.
  s.put_list(kListsAt, {kDataAt + 0x1000, kDataAt + 0x2000});
  CHECK(s.prp(kDataAt, kListsAt, 3 * 4096) == Status::success);
  CHECK(s.data.pieces.size() == 1);
}

TEST_CASE("NVMe 1.4 §4.3 a list's page ends with a pointer to the next") {
  Setup s;
  // From 16 bytes before the end of a page: one entry and a pointer, then a whole page.
  const u64 first = kListsAt + 4096 - 16;
  s.put_list(first, {kDataAt + 0x10'0000, kListsAt + 0x4000});
  std::vector<u64> rest;
  for (u64 i = 0; i < 200; ++i) rest.push_back(kDataAt + 0x20'0000 + i * 0x2000);
  s.put_list(kListsAt + 0x4000, rest);
  CHECK(s.prp(kDataAt, first, 202 * 4096) == Status::success);
  CHECK(s.data.pieces.size() == 202);
  CHECK(s.total() == 202 * 4096);
  CHECK(s.data.pieces[1].address == kDataAt + 0x10'0000);
  CHECK(s.data.pieces[201].address == rest.back());
  // Exactly as many entries as the page has: its last is data, not a pointer.
  s.put_list(first, {kDataAt + 0x10'0000, kDataAt + 0x30'0000});
  CHECK(s.prp(kDataAt, first, 3 * 4096) == Status::success);
  CHECK(s.data.pieces[2].address == kDataAt + 0x30'0000);
}

TEST_CASE("NVMe 1.4 §4.3 hostile PRP lists end in a status, soon") {
  Setup s;
  const u64 tail = kListsAt + 4096 - 8;
  s.put_list(tail, {kListsAt});         // a page of one entry, the pointer
  s.put_list(kListsAt, {kDataAt + 8});  // then an entry with an offset
  CHECK(s.prp(kDataAt, tail, 4 * 4096) == Status::prp_offset_invalid);
  s.put_list(tail, {kListsAt + 8});  // a next list with an offset
  CHECK(s.prp(kDataAt, tail, 4 * 4096) == Status::prp_offset_invalid);
  s.put_list(tail, {0x1000});  // a next list nowhere
  CHECK(s.prp(kDataAt, tail, 4 * 4096) == Status::data_transfer_error);
  // A list that points at itself is read as the entries it has, and ends.
  std::vector<u64> loop(512, kListsAt);
  s.put_list(kListsAt, loop);
  CHECK(s.prp(kDataAt, kListsAt, 1 << 20) == Status::success);
  CHECK(s.total() == 1 << 20);
  // Entries nowhere: resolved, but not direct, and the copy says no.
  s.put_list(kListsAt, {0x1000, 0x2000});
  CHECK(s.prp(kDataAt, kListsAt, 3 * 4096) == Status::success);
  CHECK_FALSE(s.data.direct);
  std::vector<std::byte> bytes(3 * 4096);
  CHECK_FALSE(s.data.scatter(bytes, s.dma));
  CHECK_FALSE(s.data.gather(bytes, s.dma));
  // At the end of the address space.
  CHECK(s.prp(~u64{0} & ~u64{3}, kDataAt, 4096) == Status::success);
  CHECK_FALSE(s.data.direct);
}

TEST_CASE("NVMe 1.4 §4.3 larger memory pages have larger lists") {
  Setup s;
  s.put_list(kListsAt, {kDataAt + 0x10'0000, kDataAt + 0x30'0000});
  CHECK(s.prp(kDataAt + 0x100, kListsAt, 0x2'0000 + 0xff00, 0x1'0000) == Status::success);
  CHECK(s.data.pieces.size() == 3);
  CHECK(s.data.pieces[0].length == 0xff00);
  CHECK(s.prp(kDataAt, kListsAt + 0x1000, 0x2'0000, 0x1'0000) == Status::prp_offset_invalid);
}

TEST_CASE("NVMe 1.4 §4.4 SGLs: one block, segments, a last segment, any alignment") {
  Setup s;
  CHECK(s.sgl(block(kDataAt + 3, 1000), 1000) == Status::success);
  CHECK(s.data.direct);
  s.put_segment(kListsAt, {block(kDataAt, 100), block(kDataAt + 1000, 300)});
  CHECK(s.sgl(last(kListsAt, 2), 400) == Status::success);
  CHECK(s.data.pieces.size() == 2);
  // Segment, segment, last segment.
  s.put_segment(kListsAt, {block(kDataAt, 100), segment(kListsAt + 0x1000, 2)});
  s.put_segment(kListsAt + 0x1000, {block(kDataAt + 200, 100), last(kListsAt + 0x2000, 1)});
  s.put_segment(kListsAt + 0x2000, {block(kDataAt + 400, 200)});
  CHECK(s.sgl(segment(kListsAt, 2), 400) == Status::success);
  CHECK(s.total() == 400);
  CHECK(s.data.pieces.size() == 3);
  // More than is needed is allowed (SGLS bit 18), less is not; empty blocks are.
  CHECK(s.sgl(segment(kListsAt, 2), 350) == Status::success);
  CHECK(s.total() == 350);
  CHECK(s.sgl(segment(kListsAt, 2), 401) == Status::data_sgl_length_invalid);
  CHECK(s.sgl(block(kDataAt, 511), 512) == Status::data_sgl_length_invalid);
  s.put_segment(kListsAt, {block(0, 0), block(kDataAt, 512)});
  CHECK(s.sgl(last(kListsAt, 2), 512) == Status::success);
}

TEST_CASE("NVMe 1.4 §4.4 a bit bucket swallows part of a read and is no part of a write") {
  Setup s;
  s.put_segment(kListsAt, {block(kDataAt, 512), bucket(512), block(kDataAt + 512, 512)});
  CHECK(s.sgl(last(kListsAt, 3), 1536) == Status::success);
  CHECK_FALSE(s.data.direct);
  std::vector<std::byte> bytes(1536);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i / 512 + 1);
  CHECK(s.data.scatter(bytes, s.dma));
  CHECK(s.dma.memory(kDataAt + 511, 1)[0] == std::byte{1});
  CHECK(s.dma.memory(kDataAt + 512, 1)[0] == std::byte{3});
  CHECK(s.sgl(last(kListsAt, 3), 1024, Access::read) == Status::success);
  CHECK(s.sgl(last(kListsAt, 3), 1536, Access::read) == Status::data_sgl_length_invalid);
}

TEST_CASE("NVMe 1.4 §4.4 hostile SGLs end in a status, soon") {
  Setup s;
  CHECK(s.sgl({kDataAt, 512, {}, 0x01}, 512) == Status::sgl_type_invalid);  // offset sub type
  CHECK(s.sgl({kDataAt, 512, {}, 0x40}, 512) == Status::sgl_type_invalid);  // keyed
  CHECK(s.sgl({kDataAt, 512, {}, 0xf0}, 512) == Status::sgl_type_invalid);
  CHECK(s.sgl({kListsAt, 0, {}, 0x30}, 512) == Status::invalid_sgl_segment);
  CHECK(s.sgl({kListsAt, 24, {}, 0x30}, 512) == Status::invalid_sgl_segment);
  CHECK(s.sgl(last(0x1000, 4), 512) == Status::data_transfer_error);
  // A segment in a last segment; a segment that is not the last descriptor.
  s.put_segment(kListsAt, {segment(kListsAt, 1)});
  CHECK(s.sgl(last(kListsAt, 1), 512) == Status::invalid_sgl_segment);
  s.put_segment(kListsAt, {segment(kListsAt, 1), block(kDataAt, 512)});
  CHECK(s.sgl(segment(kListsAt, 2), 512) == Status::invalid_sgl_count);
  // A segment that leads to itself for ever; one of empty blocks for ever.
  s.put_segment(kListsAt, {segment(kListsAt, 1)});
  CHECK(s.sgl(segment(kListsAt, 1), 512) == Status::invalid_sgl_count);
  s.put_segment(kListsAt, {block(0, 0), segment(kListsAt, 2)});
  CHECK(s.sgl(segment(kListsAt, 2), 512) == Status::invalid_sgl_count);
  std::vector<SglDescriptor> many(5000, block(kDataAt, 1));
  s.put_segment(kListsAt, many);
  CHECK(s.sgl(last(kListsAt, 5000), 5000) == Status::invalid_sgl_count);
  CHECK(s.sgl(last(kListsAt, 4096), 4096) == Status::success);
  CHECK(s.sgl({kListsAt, 0xffff'fff0, {}, 0x30}, 5000) == Status::invalid_sgl_count);
}

TEST_CASE("Memory that the device may only read is never written") {
  Setup s;
  s.dma.add(0x2000'0000, 0x2000, true, false);
  CHECK(s.prp(0x2000'0000, 0x2000'1000, 8192) == Status::success);
  CHECK_FALSE(s.data.direct);
  std::vector<std::byte> ones(8192, std::byte{0xff});
  CHECK_FALSE(s.data.scatter(ones, s.dma));
  CHECK(s.dma.memory(0x2000'0000, 1)[0] == std::byte{0});
}

}  // namespace outboard::nvme::test
