#include <random>

#include <doctest/doctest.h>

#include "vfio_user/codec.h"
#include "vfio_user_raw_client.h"

namespace outboard::vfio_user {
namespace {

using testing::Bytes;
using testing::bytes_of;
using testing::join;
using testing::text_bytes;

Bytes flatten(const Message& message) {
  Bytes all;
  for (const auto& part : message.parts()) {
    const auto* begin = static_cast<const std::byte*>(part.iov_base);
    all.insert(all.end(), begin, begin + part.iov_len);
  }
  return all;
}

TEST_CASE("A message is header, structure and data, and its size counts them all (1.1)") {
  const Bytes data(5, std::byte{7});
  const auto message = Message::command(0x1234, wire::Command::region_write, wire::kNoReply)
                           .add(wire::RegionAccess{0x10, 2, 5})
                           .borrow(data);
  const auto bytes = flatten(message);
  REQUIRE(bytes.size() == 16 + 16 + 5);
  const auto header = *read_struct<wire::Header>(bytes);
  CHECK(header.id == 0x1234);
  CHECK(header.command == 10);
  CHECK(header.size == 37);
  CHECK(header.flags == 0x10);
  const auto parsed = parse_region_write_request(std::span(bytes).subspan(16));
  REQUIRE(parsed);
  CHECK(parsed->fixed.offset == 0x10);
  CHECK(parsed->fixed.region == 2);
  CHECK(std::equal(parsed->data.begin(), parsed->data.end(), data.begin(), data.end()));
}

TEST_CASE("C24 an error reply is the header alone and echoes id and command") {
  const wire::Header request{77, 9, 32, 0, 0};
  const auto bytes = flatten(Message::error_reply(request, EINVAL));
  REQUIRE(bytes.size() == 16);
  const auto header = *read_struct<wire::Header>(bytes);
  CHECK(header.id == 77);
  CHECK(header.command == 9);
  CHECK(header.size == 16);
  CHECK(header.flags == 0x21);
  CHECK(header.error == EINVAL);
}

TEST_CASE("C25 the errno of an error reply is made sane") {
  const auto of = [](std::uint32_t error) { return error_of({0, 0, 16, 0x21, error}); };
  CHECK(of(EINVAL) == EINVAL);
  CHECK(of(4095) == 4095);
  CHECK(of(0) == EIO);
  CHECK(of(4096) == EIO);
  CHECK(of(0x80000000) == EIO);
}

TEST_CASE("C8 the JSON of VERSION ends with its only NUL; no JSON at all is legal (C6)") {
  const auto version = bytes_of(wire::Version{0, 1});
  CHECK(parse_version(version)->json.empty());
  CHECK(parse_version(join(version, text_bytes("{}"), Bytes(1)))->json == "{}");
  CHECK(!parse_version(join(version, text_bytes("{}"))));
  CHECK(!parse_version(join(version, text_bytes("{"), Bytes(1), text_bytes("}"), Bytes(1))));
  for (std::size_t size = 0; size < 4; ++size) CHECK(!parse_version(Bytes(size)));  // C7
}

/// Every length but the right one is refused.
template <class T, class Parser>
void only_exactly(const T& value, Parser parse) {
  const auto good = bytes_of(value);
  CHECK(parse(good));
  for (std::size_t size = 0; size < good.size(); ++size) {
    CHECK(!parse(std::span(good).first(size)));
  }
  CHECK(!parse(join(good, Bytes(1))));
}

TEST_CASE("A request of the wrong length is malformed (1.2)") {
  only_exactly(wire::DmaMap{32, 3, 0, 0, 4096}, parse_dma_map);
  only_exactly(wire::DmaUnmap{24, 0, 0, 4096}, parse_dma_unmap);
  only_exactly(wire::DeviceInfo{16, 0, 0, 0}, parse_device_info_request);
  only_exactly(wire::RegionInfo{32, 0, 0, 0, 0, 0}, parse_region_info_request);
  only_exactly(wire::RegionIoFds{16, 0, 0, 0}, parse_region_io_fds_request);
  only_exactly(wire::IrqInfo{16, 0, 0, 0}, parse_irq_info_request);
  only_exactly(wire::SetIrqs{20, 0x21, 0, 0, 1}, parse_set_irqs);
  only_exactly(wire::RegionAccess{0, 0, 4}, parse_region_read_request);
  only_exactly(wire::DmaAccess{0, 4}, parse_dma_read_request);
  only_exactly(wire::MigData{8, 4}, parse_mig_data_read_request);
}

TEST_CASE("An argsz below the structure is malformed (2.3)") {
  CHECK(!parse_dma_map(bytes_of(wire::DmaMap{31, 3, 0, 0, 4096})));
  CHECK(!parse_dma_unmap(bytes_of(wire::DmaUnmap{23, 0, 0, 4096})));
  CHECK(!parse_device_info_request(bytes_of(wire::DeviceInfo{15, 0, 0, 0})));
  CHECK(!parse_region_info_request(bytes_of(wire::RegionInfo{31, 0, 0, 0, 0, 0})));
  CHECK(!parse_region_io_fds_request(bytes_of(wire::RegionIoFds{15, 0, 0, 0})));
  CHECK(!parse_irq_info_request(bytes_of(wire::IrqInfo{0, 0, 0, 0})));
  CHECK(!parse_set_irqs(bytes_of(wire::SetIrqs{19, 0x21, 0, 0, 1})));
  CHECK(!parse_device_feature(bytes_of(wire::DeviceFeature{7, 0})));
}

TEST_CASE("C85 data is exactly as long as its count says") {
  const Bytes data(4);
  CHECK(parse_region_write_request(join(bytes_of(wire::RegionAccess{0, 0, 4}), data)));
  CHECK(!parse_region_write_request(join(bytes_of(wire::RegionAccess{0, 0, 5}), data)));
  CHECK(!parse_region_write_request(join(bytes_of(wire::RegionAccess{0, 0, 3}), data)));
  CHECK(!parse_dma_write_request(join(bytes_of(wire::DmaAccess{0, std::uint64_t{1} << 63}), data)));
  CHECK(!parse_region_read_reply(join(bytes_of(wire::RegionAccess{0, 0, 8}), data)));
  CHECK(parse_region_read_reply({}));  // a count of 0 as a header alone
  CHECK(!parse_dma_read_reply(join(bytes_of(wire::DmaAccess{0, 8}), data)));
  CHECK(!parse_mig_data_write_request(join(bytes_of(wire::MigData{8, 8}), data)));
}

TEST_CASE("A MIG_DATA_READ reply has as much data as its size says, not as the header (1.2)") {
  const auto reply = join(bytes_of(wire::MigData{12, 2}), Bytes(4));
  CHECK(parse_mig_data_read_reply(reply)->data.size() == 2);
}

TEST_CASE("SET_IRQS names one kind of data and one action (1.2)") {
  for (std::uint32_t flags = 0; flags < 128; ++flags) {
    CAPTURE(flags);
    const bool good =
        std::popcount(flags & 7u) == 1 && std::popcount(flags & 0x38u) == 1 && flags < 64;
    const bool bools = (flags & wire::kSetIrqsDataBool) != 0;
    const wire::SetIrqs request{bools ? 23u : 20u, flags, 0, 0, 3};
    CHECK(parse_set_irqs(join(bytes_of(request), Bytes(bools ? 3 : 0))).has_value() == good);
  }
  CHECK(!parse_set_irqs(bytes_of(wire::SetIrqs{20, 0x24, 0, UINT32_MAX, 1})));
  CHECK(!parse_set_irqs(join(bytes_of(wire::SetIrqs{22, 0x22, 0, 0, 3}), Bytes(2))));
}

TEST_CASE("WRITE_MULTI entries fill the payload and write 1 to 8 bytes each (1.2)") {
  const auto entry = [](std::uint32_t count) {
    return bytes_of(wire::WriteMultiEntry{0, 0, count, {}});
  };
  const auto multi = [](std::uint64_t count) { return bytes_of(wire::WriteMulti{count}); };
  CHECK(parse_write_multi_request(multi(0))->empty());
  CHECK(parse_write_multi_request(join(multi(2), entry(1), entry(8)))->size() == 2);
  CHECK(!parse_write_multi_request(join(multi(2), entry(1))));
  CHECK(!parse_write_multi_request(join(multi(1), entry(0))));
  CHECK(!parse_write_multi_request(join(multi(1), entry(9))));
  CHECK(!parse_write_multi_request(join(multi(1), entry(1), Bytes(1))));
  CHECK(!parse_write_multi_request(join(multi((UINT64_MAX / 24) + 2), entry(1))));
}

Bytes region_info(std::uint32_t argsz, std::uint32_t flags, std::uint32_t cap_offset,
                  const Bytes& tail) {
  return join(bytes_of(wire::RegionInfo{argsz, flags, 0, cap_offset, 0x4000, 0}), tail);
}

Bytes cap(std::uint16_t id, std::uint32_t next, const Bytes& body) {
  return join(bytes_of(wire::CapabilityHeader{id, 1, next}), body);
}

TEST_CASE("What the server encodes, the client parses: sparse areas (2.3)") {
  const std::vector<SparseArea> areas{{0x1000, 0x1000}, {0x3000, 0x2000}};
  const auto tail = encode_sparse_areas(areas);
  CHECK(tail.size() == 16 + 2 * 16);
  const auto reply = parse_region_info_reply(
      region_info(static_cast<std::uint32_t>(32 + tail.size()), 0xf, 32, tail));
  REQUIRE(reply);
  CHECK(reply->sparse);
  CHECK(reply->areas == areas);
}

TEST_CASE("C38 C39 C41 capability chains that point outside, loop or overflow are malformed") {
  const auto sparse = [](std::uint32_t count, std::size_t bytes) {
    return join(bytes_of(wire::SparseMmap{count, 0}), Bytes(bytes));
  };
  const auto parse = [](std::uint32_t cap_offset, const Bytes& tail) {
    return parse_region_info_reply(
        region_info(static_cast<std::uint32_t>(32 + tail.size()), 0xf, cap_offset, tail));
  };
  CHECK(!parse(8, cap(1, 0, sparse(0, 0))));
  CHECK(!parse(31, cap(1, 0, sparse(0, 0))));
  CHECK(!parse(33, Bytes{}));
  CHECK(!parse(32, Bytes{}));  // the flag, but no bytes
  CHECK(!parse(UINT32_MAX, cap(1, 0, sparse(0, 0))));
  CHECK(!parse(32, cap(9, 32, Bytes(16))));                  // a loop onto itself
  CHECK(!parse(40, join(Bytes(8), cap(9, 32, Bytes(16)))));  // backwards
  CHECK(!parse(32, cap(9, 36, Bytes(16))));                  // into its own header
  CHECK(!parse(32, cap(1, 0, sparse(1u << 28, 16))));        // nr_areas * 16 overflows
  CHECK(!parse(32, cap(1, 0, sparse(2, 16))));
  CHECK(parse(0, Bytes{}));  // no chain
  CHECK(parse(32, cap(1, 0, sparse(0, 0)))->sparse);
  CHECK(parse(32, join(cap(9, 48, Bytes(8)), cap(1, 0, sparse(1, 16))))->areas.size() == 1);  // C40
  CHECK(parse(32, cap(9, 44, join(Bytes(4), cap(1, 0, sparse(1, 16)))))->areas.size() == 1);
}

TEST_CASE("C39 a chain of 10 000 capabilities is malformed") {
  Bytes chain;
  for (std::uint32_t i = 0; i < 10'000; ++i) {
    const auto link = cap(9, 32 + (i + 1) * 8, {});
    chain.insert(chain.end(), link.begin(), link.end());
  }
  CHECK(!parse_region_info_reply(
      region_info(static_cast<std::uint32_t>(32 + chain.size()), 0xf, 32, chain)));
}

TEST_CASE("C37 an argsz above the reply means that the capabilities were left out") {
  const auto reply = parse_region_info_reply(region_info(64, 0xf, 32, {}));
  REQUIRE(reply);
  CHECK(!reply->sparse);
  CHECK(reply->fixed.argsz == 64);
  CHECK(!parse_region_info_reply(region_info(31, 0, 0, {})));
}

TEST_CASE("C61 IO_FDS entries of 40 and 48 bytes are told apart by argsz") {
  const std::vector<IoFdInfo> entries{{0x1000, 4, 0, wire::IoFdType::ioeventfd, 1, 99},
                                      {0x1008, 0, 1, wire::IoFdType::ioeventfd, 0, 0}};
  for (const bool wide : {false, true}) {
    CAPTURE(wide);
    const auto tail = encode_io_fds(entries, wide);
    CHECK(tail.size() == 2 * (wide ? 48 : 40));
    const auto argsz = static_cast<std::uint32_t>(16 + tail.size());
    const auto reply =
        parse_region_io_fds_reply(join(bytes_of(wire::RegionIoFds{argsz, 0, 0, 2}), tail));
    REQUIRE(reply);
    REQUIRE(reply->entries.size() == 2);
    CHECK(reply->entries[0].offset == 0x1000);
    CHECK(reply->entries[0].size == 4);
    CHECK(reply->entries[0].flags == 1);
    CHECK(reply->entries[0].datamatch == 99);
    CHECK(reply->entries[1].fd_index == 1);
  }
}

TEST_CASE("C61 IO_FDS counts that do not fit the bytes are malformed") {
  const auto parse = [](std::uint32_t argsz, std::uint32_t count, std::size_t bytes) {
    return parse_region_io_fds_reply(
        join(bytes_of(wire::RegionIoFds{argsz, 0, 0, count}), Bytes(bytes)));
  };
  CHECK(!parse(16, 1, 0));
  CHECK(!parse(16, 1u << 31, 0));
  CHECK(!parse(16 + 44, 1, 44));
  CHECK(!parse(16 + 41 * 2, 2, 82));
  CHECK(!parse(15, 0, 0));
  CHECK(parse(16, 0, 0)->entries.empty());
  CHECK(parse(16 + 40, 1, 0)->entries.empty());  // did not fit: ask again with argsz
}

TEST_CASE("C26 a reply shorter than its structure is malformed") {
  for (std::size_t size = 0; size < 32; ++size) {
    const Bytes bytes(size, std::byte{0x20});
    CHECK(!parse_region_info_reply(bytes));
    if (size < 16) {
      CHECK(!parse_device_info_reply(bytes));
      CHECK(!parse_irq_info_reply(bytes));
      CHECK(!parse_region_write_reply(bytes));
      CHECK(!parse_dma_write_reply(bytes));
      CHECK(!parse_region_io_fds_reply(bytes));
    }
    if (size != 0 && size < 24) CHECK(!parse_dma_unmap_reply(bytes));
  }
  CHECK(parse_dma_unmap_reply({})->has_value() == false);  // C79: the header alone
  CHECK(!parse_dma_write_reply(Bytes(12)));                // the size the text once printed
}

/// Field values that sit on the edges.
std::uint32_t odd_value(std::mt19937_64& random) {
  static constexpr std::array<std::uint32_t, 12> kEdges{
      0, 1, 8, 15, 16, 31, 32, 40, 48, 0x7fffffff, 0x80000000, 0xffffffff};
  return random() % 3 == 0 ? static_cast<std::uint32_t>(random())
                           : kEdges[random() % kEdges.size()];
}

TEST_CASE("No sequence of bytes makes a parser read outside of it (fixed seed, under ASan)") {
  std::mt19937_64 random(20240607);
  std::size_t accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    // On the heap and exactly as large as the message, so that a byte too many is seen.
    Bytes bytes(random() % 160);
    for (auto& byte : bytes) byte = static_cast<std::byte>(random() % 4 == 0 ? random() : 0);
    for (std::size_t at = 0; at + 4 <= bytes.size(); at += 4) {
      const std::uint32_t value = odd_value(random);
      std::memcpy(bytes.data() + at, &value, sizeof(value));
    }
    const std::span<const std::byte> payload(bytes);
    const auto count = [&](const auto& result) { accepted += result.has_value() ? 1 : 0; };
    if (const auto version = parse_version(payload)) {
      CHECK(version->json.size() + 5 <= std::max<std::size_t>(payload.size(), 5));
    }
    count(parse_dma_map(payload));
    count(parse_dma_unmap(payload));
    count(parse_set_irqs(payload));
    count(parse_region_write_request(payload));
    count(parse_write_multi_request(payload));
    count(parse_dma_write_request(payload));
    count(parse_device_feature(payload));
    count(parse_mig_data_write_request(payload));
    count(parse_dma_unmap_reply(payload));
    count(parse_region_read_reply(payload));
    count(parse_dma_read_reply(payload));
    count(parse_mig_data_read_reply(payload));
    if (const auto info = parse_region_info_reply(payload)) {
      CHECK(info->areas.size() * sizeof(wire::SparseMmapArea) <= payload.size());
    }
    if (const auto fds = parse_region_io_fds_reply(payload)) {
      CHECK(fds->entries.size() * sizeof(wire::IoFdEntry) <= payload.size());
    }
  }
  CHECK(accepted > 0);
}

}  // namespace
}  // namespace outboard::vfio_user
