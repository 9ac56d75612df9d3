#include <doctest/doctest.h>
#include <sys/eventfd.h>

#include "vfio_user/capabilities.h"
#include "vfio_user/codec.h"
#include "vfio_user/server.h"
#include "vfio_user_raw_client.h"

namespace outboard::vfio_user {
namespace {

using testing::Bench;
using testing::Bytes;
using testing::bytes_of;
using testing::join;
using testing::make_memfd;
using testing::open_fds;
using testing::text_bytes;
using wire::Command;

Bytes version_bytes(std::uint16_t major, std::uint16_t minor, const std::string& json) {
  return join(bytes_of(wire::Version{major, minor}), text_bytes(json), Bytes(1));
}

bool closed(const Bench& bench) {
  pollfd entry{bench.client.get(), POLLRDHUP, 0};
  return ::poll(&entry, 1, 0) > 0 && (entry.revents & (POLLRDHUP | POLLHUP)) != 0;
}

UniqueFd make_eventfd() {
  return UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

std::uint64_t count_of(const UniqueFd& eventfd) {
  std::uint64_t count = 0;
  if (::read(eventfd.get(), &count, sizeof(count)) != sizeof(count)) return 0;
  return count;
}

TEST_CASE("VERSION answers the smaller minor, and what the server can (2.2)") {
  Bench bench;
  const auto reply = bench.ask(Command::version, version_bytes(0, 77, Bench::kPlainCaps));
  REQUIRE(reply);
  CHECK(reply->error() == 0);
  CHECK(reply->header.flags == wire::kTypeReply);
  CHECK(reply->as<wire::Version>().major == 0);
  CHECK(reply->as<wire::Version>().minor == 2);
  CHECK(reply->fds.empty());
  CHECK(reply->payload.back() == std::byte{0});
  auto text = reply->text(4);
  text.pop_back();
  const auto capabilities = parse_capabilities(text);
  REQUIRE(capabilities);
  CHECK(capabilities->max_msg_fds == 16);
  CHECK(capabilities->max_data_xfer_size == 1024 * 1024);
  CHECK(capabilities->write_multiple);
  CHECK(!capabilities->twin_socket);
  CHECK(bench.device.connects_ == 1);
  CHECK(bench.server->connected());
}

TEST_CASE("A client with minor 0 or 1, or with no JSON, is served (2.2)") {
  for (std::uint16_t minor = 0; minor < 2; ++minor) {
    Bench bench;
    const auto reply = bench.ask(Command::version, bytes_of(wire::Version{0, minor}));
    REQUIRE(reply);
    CHECK(reply->as<wire::Version>().minor == minor);
    CHECK(bench.ask(Command::device_get_info, bytes_of(wire::DeviceInfo{16, 0, 0, 0}))->error() ==
          0);
  }
}

TEST_CASE("write_multiple is granted only to a client that knows it (1.3)") {
  Bench bench;
  CHECK(bench.negotiate("{}")->text(4).find("write_multiple") == std::string::npos);
}

TEST_CASE("A device that resumes says so only to a client that asks: to others nothing is new") {
  const std::string id(32, 'a');
  Bench plain;
  const auto before = plain.negotiate();
  Bench ignorant;
  ignorant.device.resume_ = ResumeCapability{id, true};
  CHECK(ignorant.negotiate()->payload == before->payload);
  Bench asking;
  asking.device.resume_ = ResumeCapability{id, true};
  auto text = asking.negotiate(R"({"capabilities":{"resume":{"supported":true}}})")->text(4);
  text.pop_back();
  CHECK(parse_capabilities(text)->resume == asking.device.resume_);
  Bench cannot;
  CHECK(cannot.negotiate(R"({"capabilities":{"resume":{"supported":true}}})")
            ->text(4)
            .find("resume") == std::string::npos);
}

TEST_CASE("The twin socket is granted when asked for, with its fd (2.8)") {
  Bench bench;
  const auto reply =
      bench.negotiate(R"({"capabilities":{"max_msg_fds":8,"twin_socket":{"supported":true}}})");
  REQUIRE(reply);
  REQUIRE(reply->fds.size() == 1);
  auto text = reply->text(4);
  text.pop_back();
  CHECK(parse_capabilities(text)->twin_socket_fd_index == 0u);
  CHECK(16 + reply->payload.size() <= 200);
}

TEST_CASE("No twin socket for a client that takes no fd, or when it is switched off (2.8)") {
  Bench no_fds;
  CHECK(no_fds.negotiate(R"({"capabilities":{"max_msg_fds":0,"twin_socket":{"supported":true}}})")
            ->fds.empty());
  ServerOptions options;
  options.twin_socket = false;
  Bench off(options);
  const auto reply = off.negotiate(R"({"capabilities":{"twin_socket":{"supported":true}}})");
  CHECK(reply->fds.empty());
  CHECK(reply->text(4).find("twin_socket") == std::string::npos);
}

TEST_CASE("A bad VERSION is answered with EINVAL, then the connection is closed (2.2)") {
  const auto refused = [](const Bytes& payload, std::span<const int> fds = {}) {
    Bench bench;
    const auto reply = bench.ask(Command::version, payload, fds);
    const bool ok = reply && reply->error() == EINVAL && reply->header.size == 16;
    return ok && closed(bench) && bench.device.connects_ == 0 && bench.device.disconnects_ == 0 &&
           bench.server->counters().dropped == 1;
  };
  CHECK(refused(version_bytes(1, 0, "{}")));
  CHECK(refused(version_bytes(0, 0, "{")));
  CHECK(refused(version_bytes(0, 0, R"({"capabilities":{"max_msg_fds":"8"}})")));
  CHECK(refused(join(bytes_of(wire::Version{0, 0}), text_bytes("{}"))));  // no NUL
  CHECK(refused(Bytes(3)));
  CHECK(refused({}));
  const auto fd = make_memfd(4096);
  const int raw = fd.get();
  CHECK(refused(version_bytes(0, 0, "{}"), std::span(&raw, 1)));
}

TEST_CASE("Any command before VERSION is answered with EINVAL, then the connection is closed") {
  for (std::uint16_t command = 2; command < 20; ++command) {
    Bench bench;
    const auto reply = bench.ask(command, {});
    REQUIRE(reply);
    CHECK(reply->error() == EINVAL);
    CHECK(closed(bench));
  }
}

TEST_CASE("A second VERSION is refused, and the connection goes on") {
  Bench bench;
  bench.negotiate();
  CHECK(bench.negotiate()->error() == EINVAL);
  CHECK(bench.ask(Command::device_reset, {})->error() == 0);
}

TEST_CASE("GET_INFO tells a resettable PCI device of 9 regions and 5 interrupt indexes (1.2)") {
  Bench bench;
  bench.negotiate();
  auto reply = bench.ask(Command::device_get_info, bytes_of(wire::DeviceInfo{16, 0, 0, 0}));
  REQUIRE(reply);
  CHECK(reply->header.size == 32);
  CHECK(reply->as<wire::DeviceInfo>().flags == 3);
  CHECK(reply->as<wire::DeviceInfo>().num_regions == 9);
  CHECK(reply->as<wire::DeviceInfo>().num_irqs == 5);
  bench.device.shape_.resettable = false;
  reply = bench.ask(Command::device_get_info, bytes_of(wire::DeviceInfo{16, 0, 0, 0}));
  CHECK(reply->as<wire::DeviceInfo>().flags == 2);
  CHECK(bench.ask(Command::device_reset, {})->error() == ENOTSUP);
  CHECK(bench.device.resets_ == 0);
}

std::optional<testing::RawMessage> region_info(Bench& bench, std::uint32_t index,
                                               std::uint32_t argsz) {
  return bench.ask(Command::device_get_region_info,
                   bytes_of(wire::RegionInfo{argsz, 0, index, 0, 0, 0}));
}

TEST_CASE("GET_REGION_INFO: too small an argsz learns the size, and gets no fd and no caps (2.3)") {
  Bench bench;
  bench.negotiate();
  auto reply = region_info(bench, 2, 32);
  REQUIRE(reply);
  auto info = reply->as<wire::RegionInfo>();
  CHECK(reply->payload.size() == 32);
  CHECK(info.argsz == 32 + 16 + 16);
  CHECK(info.flags == 7);
  CHECK(info.cap_offset == 0);
  CHECK(info.size == 0x4000);
  CHECK(reply->fds.empty());

  reply = region_info(bench, 2, info.argsz);
  info = reply->as<wire::RegionInfo>();
  CHECK(info.flags == 0xf);
  CHECK(info.cap_offset == 32);
  CHECK(reply->payload.size() == 64);
  REQUIRE(reply->fds.size() == 1);
  const auto parsed = parse_region_info_reply(reply->payload);
  REQUIRE(parsed);
  CHECK(parsed->areas == std::vector<SparseArea>{{0x1000, 0x1000}});
  // The fd is the device's own page.
  REQUIRE(::pwrite(bench.device.bar_page_.get(), "page", 4, 0x1000) == 4);
  std::array<char, 4> seen{};
  REQUIRE(::pread(reply->fds[0].get(), seen.data(), 4, 0x1000) == 4);
  CHECK(std::string(seen.data(), 4) == "page");
}

TEST_CASE("A region that is mappable as a whole has one area (2.3)") {
  Bench bench;
  bench.negotiate();
  bench.device.shape_.regions[2].areas.clear();
  const auto reply = region_info(bench, 2, 1024);
  CHECK(parse_region_info_reply(reply->payload)->areas == std::vector<SparseArea>{{0, 0x4000}});
}

TEST_CASE("A client that takes no fds sees no mappable region; one that is absent has size 0") {
  Bench bench;
  bench.negotiate(R"({"capabilities":{"max_msg_fds":0}})");
  CHECK(region_info(bench, 2, 1024)->as<wire::RegionInfo>().flags == 3);
  CHECK(region_info(bench, 1, 32)->as<wire::RegionInfo>().size == 0);
  CHECK(region_info(bench, 8, 32)->error() == 0);
  CHECK(region_info(bench, 9, 32)->error() == EINVAL);
  CHECK(region_info(bench, UINT32_MAX, 32)->error() == EINVAL);
  CHECK(region_info(bench, 0, 31)->error() == EINVAL);
}

TEST_CASE("GET_IRQ_INFO tells flags and count; index 5 is EINVAL (1.2)") {
  Bench bench;
  bench.negotiate();
  const auto ask = [&](std::uint32_t index) {
    return bench.ask(Command::device_get_irq_info, bytes_of(wire::IrqInfo{16, 0, index, 0}));
  };
  CHECK(ask(0)->as<wire::IrqInfo>().flags == 7);
  CHECK(ask(0)->as<wire::IrqInfo>().count == 1);
  CHECK(ask(2)->as<wire::IrqInfo>().count == 64);
  CHECK(ask(1)->as<wire::IrqInfo>().count == 0);
  CHECK(ask(5)->error() == EINVAL);
}

TEST_CASE("GET_REGION_IO_FDS follows the argsz rule and shares fds among entries (1.2)") {
  for (const bool wide : {false, true}) {
    ServerOptions options;
    options.wide_io_fds = wide;
    Bench bench(options);
    bench.negotiate();
    const auto one = make_eventfd();
    const auto two = make_eventfd();
    bench.device.io_fds_ = {{0x10, 4, one.get(), 0, 0},
                            {0x14, 4, one.get(), wire::kIoEventFdDatamatch, 5},
                            {0x18, 4, two.get(), 0, 0}};
    const auto ask = [&](std::uint32_t argsz, std::uint32_t index) {
      return bench.ask(Command::device_get_region_io_fds,
                       bytes_of(wire::RegionIoFds{argsz, 0, index, 0}));
    };
    auto reply = ask(16, 0);
    const auto needed = reply->as<wire::RegionIoFds>().argsz;
    CHECK(needed == 16u + 3u * (wide ? 48u : 40u));
    CHECK(reply->fds.empty());
    CHECK(reply->payload.size() == 16);
    reply = ask(needed, 0);
    CHECK(reply->fds.size() == 2);
    const auto parsed = parse_region_io_fds_reply(reply->payload);
    REQUIRE(parsed);
    REQUIRE(parsed->entries.size() == 3);
    CHECK(parsed->entries[1].fd_index == 0);
    CHECK(parsed->entries[1].datamatch == 5);
    CHECK(parsed->entries[2].fd_index == 1);
    CHECK(ask(1024, 1)->as<wire::RegionIoFds>().count == 0);
    CHECK(ask(1024, 9)->error() == EINVAL);
  }
}

TEST_CASE("GET_REGION_IO_FDS never sends more fds than the client takes (1.3)") {
  Bench bench;
  bench.negotiate("{}");  // 1 fd
  const auto one = make_eventfd();
  const auto two = make_eventfd();
  bench.device.io_fds_ = {{0x10, 4, one.get(), 0, 0}, {0x18, 4, two.get(), 0, 0}};
  const auto reply =
      bench.ask(Command::device_get_region_io_fds, bytes_of(wire::RegionIoFds{4096, 0, 0, 0}));
  CHECK(reply->fds.size() == 1);
  CHECK(reply->as<wire::RegionIoFds>().count == 1);
}

Bytes access(std::uint32_t region, std::uint64_t offset, std::uint32_t count) {
  return bytes_of(wire::RegionAccess{offset, region, count});
}

TEST_CASE("What is written is read back; the write reply repeats the 16 bytes (1.2)") {
  Bench bench;
  bench.negotiate();
  const Bytes data{std::byte{1}, std::byte{2}, std::byte{3}};
  auto reply = bench.ask(Command::region_write, join(access(0, 5, 3), data));
  CHECK(reply->error() == 0);
  CHECK(reply->payload == access(0, 5, 3));
  reply = bench.ask(Command::region_read, access(0, 5, 3));
  CHECK(reply->payload == join(access(0, 5, 3), data));
}

TEST_CASE("Accesses outside a region or against its flags fail with a header alone (2.4)") {
  Bench bench;
  bench.negotiate();
  const auto read = [&](std::uint32_t region, std::uint64_t offset, std::uint32_t count) {
    const auto reply = bench.ask(Command::region_read, access(region, offset, count));
    if (reply->error() != 0) CHECK(reply->header.size == 16);
    return reply->error();
  };
  CHECK(read(0, 0xfc, 4) == 0);
  CHECK(read(0, 0xfd, 4) == EINVAL);
  CHECK(read(0, 0x100, 1) == EINVAL);
  CHECK(read(0, 0x100, 0) == 0);
  CHECK(read(0, UINT64_MAX, 2) == EINVAL);
  CHECK(read(0, UINT64_MAX - 3, 4) == EINVAL);
  CHECK(read(1, 0, 1) == EINVAL);  // absent
  CHECK(read(9, 0, 1) == EINVAL);
  CHECK(bench.ask(Command::region_write, join(access(4, 0, 1), Bytes(1)))->error() == EPERM);
  CHECK(bench.ask(Command::region_write, join(access(0, 0xf8, 1), Bytes(1)))->error() == EIO);
  CHECK(bench.ask(Command::region_write, join(access(0, 0, 2), Bytes(1)))->error() == EINVAL);
  CHECK(bench.ask(Command::region_write, join(access(0, 0, 1), Bytes(2)))->error() == EINVAL);
  CHECK(bench.ask(Command::region_read, Bytes(15))->error() == EINVAL);
  CHECK(read(0, 0, 4) == 0);  // the stream is intact
}

TEST_CASE("A device error that is no errno becomes EIO") {
  Bench bench;
  bench.negotiate();
  bench.device.on_read = [](auto, auto) { return -EINVAL; };
  CHECK(bench.ask(Command::region_read, access(0, 0, 4))->error() == EIO);
}

TEST_CASE("No_reply is honoured, also by a command that fails (2.5)") {
  Bench bench;
  bench.negotiate();
  const auto write = join(access(0, 0, 1), Bytes(1, std::byte{42}));
  CHECK(!bench.ask(Command::region_write, write, {}, wire::kNoReply));
  CHECK(!bench.ask(Command::region_write, join(access(9, 0, 1), Bytes(1)), {}, wire::kNoReply));
  CHECK(!bench.ask(Command::device_reset, {}, {}, wire::kNoReply));
  CHECK(bench.device.memory_[{0, 0}] == std::byte{42});
  CHECK(bench.device.resets_ == 1);
  CHECK(bench.server->counters().posted == 3);
  CHECK(bench.ask(Command::region_read, access(0, 0, 1))->payload.back() == std::byte{42});
}

Bytes write_entry(std::uint32_t region, std::uint64_t offset, std::uint8_t value,
                  std::uint32_t count = 1) {
  return bytes_of(wire::WriteMultiEntry{offset, region, count, {value}});
}

TEST_CASE("C60 WRITE_MULTI writes in order and counts what was written (1.2)") {
  Bench bench;
  bench.negotiate();
  const auto reply =
      bench.ask(Command::region_write_multi,
                join(bytes_of(wire::WriteMulti{4}), write_entry(0, 0, 1), write_entry(9, 0, 1),
                     write_entry(0, 0, 2), write_entry(0, 0xf8, 3)));
  REQUIRE(reply);
  CHECK(reply->as<wire::WriteMulti>().count == 2);
  CHECK(reply->payload.size() == 8);
  CHECK(bench.device.memory_[{0, 0}] == std::byte{2});
  CHECK(bench
            .ask(Command::region_write_multi,
                 join(bytes_of(wire::WriteMulti{2}), write_entry(0, 0, 9)))
            ->error() == EINVAL);
  CHECK(bench.device.memory_[{0, 0}] == std::byte{2});
}

TEST_CASE("Commands that are not the client's, removed or unknown are EINVAL, others unsupported") {
  Bench bench;
  bench.negotiate();
  for (const std::uint16_t command :
       std::initializer_list<std::uint16_t>{0, 11, 12, 14, 19, 65535}) {
    CAPTURE(command);
    CHECK(bench.ask(command, Bytes(32))->error() == EINVAL);
  }
  CHECK(bench
            .ask(Command::device_feature,
                 bytes_of(wire::DeviceFeature{8, wire::kFeatureProbe | wire::kFeatureMigration}))
            ->error() == ENOTTY);
  CHECK(bench.ask(Command::mig_data_read, bytes_of(wire::MigData{8, 4}))->error() == ENOTSUP);
  CHECK(bench.ask(Command::device_reset, Bytes(1))->error() == EINVAL);
  CHECK(bench.device.resets_ == 0);
  CHECK(bench.ask(Command::device_reset, {})->error() == 0);
  CHECK(bench.device.resets_ == 1);
}

TEST_CASE("Fds that a command does not take are closed and answered with EINVAL (2.1)") {
  Bench bench;
  bench.negotiate();
  const auto before = open_fds();
  const auto fd = make_memfd(4096);
  const std::vector<int> raw(16, fd.get());
  CHECK(
      bench.ask(Command::device_get_info, bytes_of(wire::DeviceInfo{16, 0, 0, 0}), raw)->error() ==
      EINVAL);
  CHECK(bench.ask(Command::dma_map, bytes_of(wire::DmaMap{32, 3, 0, 0, 4096}), raw)->error() ==
        EINVAL);
  CHECK(bench.set_irqs(0x21, 2, 0, 0, raw) == EINVAL);
  CHECK(open_fds() == before + 1);
}

TEST_CASE("DMA_MAP shows memory to the device until DMA_UNMAP of the same range (2.7)") {
  Bench bench;
  bench.negotiate();
  const auto fd = make_memfd(0x10000);
  CHECK(bench.dma_map(0x100000, 0x8000, fd.get(), 0x4000) == 0);
  REQUIRE(bench.device.mapped_.size() == 1);
  CHECK(bench.device.mapped_[0].sealed);
  REQUIRE(::pwrite(fd.get(), "abc", 3, 0x4100) == 3);
  const auto host = bench.server->translate(0x100100, 3, true);
  REQUIRE(host.size() == 3);
  CHECK(std::memcmp(host.data(), "abc", 3) == 0);

  const auto unmap = [&](std::uint32_t flags, std::uint64_t address, std::uint64_t size) {
    return bench.ask(Command::dma_unmap, bytes_of(wire::DmaUnmap{24, flags, address, size}));
  };
  CHECK(unmap(0, 0x100000, 0x4000)->error() == ENOENT);
  CHECK(unmap(4, 0x100000, 0x8000)->error() == EINVAL);
  const auto reply = unmap(0, 0x100000, 0x8000);
  CHECK(reply->payload == bytes_of(wire::DmaUnmap{24, 0, 0x100000, 0x8000}));
  CHECK(bench.device.unmapped_.size() == 1);
  CHECK(bench.server->translate(0x100100, 3, true).empty());
  CHECK(unmap(0, 0x100000, 0x8000)->error() == ENOENT);
}

TEST_CASE("DMA_UNMAP with unmap-all takes every window, and wants address and size 0 (1.2)") {
  Bench bench;
  bench.negotiate();
  const auto fd = make_memfd(0x10000);
  CHECK(bench.dma_map(0x0000, 0x1000, fd.get()) == 0);
  CHECK(bench.dma_map(0x1000, 0x1000, -1) == 0);
  const auto unmap = [&](std::uint64_t size) {
    return bench.ask(Command::dma_unmap, bytes_of(wire::DmaUnmap{24, wire::kUnmapAll, 0, size}));
  };
  CHECK(unmap(0x1000)->error() == EINVAL);
  CHECK(unmap(0)->error() == 0);
  CHECK(bench.device.unmapped_.size() == 2);
  CHECK(unmap(0)->error() == 0);
}

TEST_CASE("C81 a client whose memory can be truncated is named in the log, once") {
  Bench bench;
  bench.negotiate();
  const auto fd = make_memfd(0x10000, false);
  CHECK(bench.dma_map(0, 0x1000, fd.get()) == 0);
  CHECK(bench.dma_map(0x1000, 0x1000, fd.get()) == 0);
  REQUIRE(bench.log.size() == 1);
  CHECK(bench.log[0].find("F_SEAL_SHRINK") != std::string::npos);
}

TEST_CASE("SET_IRQS arms eventfds in chunks, and trigger() signals exactly the one asked (2.6)") {
  Bench bench;
  bench.negotiate();
  std::vector<UniqueFd> eventfds;
  std::vector<int> raw;
  for (int i = 0; i < 64; ++i) {
    eventfds.push_back(make_eventfd());
    raw.push_back(eventfds.back().get());
  }
  for (std::uint32_t start = 0; start < 64; start += 16) {
    CHECK(bench.set_irqs(0x24, 2, start, 16, std::span(raw).subspan(start, 16)) == 0);
  }
  CHECK(bench.device.armed_ == std::vector<std::uint32_t>{2, 2, 2, 2});
  CHECK(bench.server->trigger(2, 37) == 0);
  for (std::uint32_t i = 0; i < 64; ++i) CHECK(count_of(eventfds[i]) == (i == 37 ? 1 : 0));
  CHECK(bench.server->trigger(2, 64) == EINVAL);
  CHECK(bench.server->trigger(0, 0) == ENOENT);
  CHECK(bench.server->trigger(5, 0) == EINVAL);
  CHECK(bench.server->counters().triggers == 1);
}

TEST_CASE("SET_IRQS takes away: eventfd data without fds a range, none with count 0 all (2.6)") {
  Bench bench;
  bench.negotiate();
  const auto before = open_fds();
  const auto eventfd = make_eventfd();
  const std::vector<int> raw(8, eventfd.get());
  CHECK(bench.set_irqs(0x24, 2, 8, 8, raw) == 0);
  CHECK(bench.set_irqs(0x24, 2, 10, 2) == 0);
  CHECK(!bench.server->armed(2, 10));
  CHECK(!bench.server->armed(2, 11));
  CHECK(bench.server->armed(2, 12));
  CHECK(bench.server->armed(2, 9));
  CHECK(bench.set_irqs(0x21, 2, 0, 0) == 0);
  for (std::uint32_t i = 0; i < 64; ++i) CHECK(!bench.server->armed(2, i));
  CHECK(open_fds() == before + 1);
}

TEST_CASE("SET_IRQS that does not fit the index is EINVAL and changes nothing (2.6)") {
  Bench bench;
  bench.negotiate();
  const auto eventfd = make_eventfd();
  const auto memfd = make_memfd(4096);
  const std::vector<int> raw(16, eventfd.get());
  const std::vector<int> mixed{eventfd.get(), memfd.get()};
  const std::vector<int> many(17, eventfd.get());
  CHECK(bench.set_irqs(0x24, 2, 60, 5, std::span(raw).first(5)) == EINVAL);
  CHECK(bench.set_irqs(0x24, 2, 0, 3, std::span(raw).first(2)) == EINVAL);
  CHECK(bench.set_irqs(0x24, 2, 0, 0) == EINVAL);
  CHECK(bench.set_irqs(0x24, 2, 0, 17, many) == EINVAL);                    // over max_msg_fds
  CHECK(bench.set_irqs(0x24, 1, 0, 1, std::span(raw).first(1)) == EINVAL);  // no vectors
  CHECK(bench.set_irqs(0x21, 1, 0, 0) == EINVAL);
  CHECK(bench.set_irqs(0x24, 5, 0, 1, std::span(raw).first(1)) == EINVAL);
  CHECK(bench.set_irqs(0x24, 2, 0, 2, mixed) == EINVAL);  // no eventfd
  CHECK(bench.set_irqs(0x21, 2, 1, 0) == EINVAL);
  CHECK(bench.set_irqs(0x25, 2, 0, 1) == EINVAL);
  CHECK(bench.set_irqs(0x2c, 2, 0, 1) == EINVAL);
  for (std::uint32_t i = 0; i < 64; ++i) CHECK(!bench.server->armed(2, i));
  CHECK(bench.device.armed_.empty());
}

TEST_CASE("C72 trigger with none or bool data signals exactly the vectors selected (2.6)") {
  Bench bench;
  bench.negotiate();
  std::vector<UniqueFd> eventfds;
  std::vector<int> raw;
  for (int i = 0; i < 4; ++i) raw.push_back(eventfds.emplace_back(make_eventfd()).get());
  CHECK(bench.set_irqs(0x24, 2, 0, 4, raw) == 0);
  CHECK(bench.set_irqs(0x22, 2, 1, 3, {}, {std::byte{1}, std::byte{0}, std::byte{1}}) == 0);
  CHECK(count_of(eventfds[0]) == 0);
  CHECK(count_of(eventfds[1]) == 1);
  CHECK(count_of(eventfds[2]) == 0);
  CHECK(count_of(eventfds[3]) == 1);
  CHECK(bench.set_irqs(0x21, 2, 0, 2) == 0);
  CHECK(count_of(eventfds[0]) == 1);
  CHECK(count_of(eventfds[1]) == 1);
  CHECK(count_of(eventfds[2]) == 0);
}

TEST_CASE("C69 a masked vector stays pending and is delivered once when it is unmasked") {
  Bench bench;
  bench.negotiate();
  const auto eventfd = make_eventfd();
  const int raw = eventfd.get();
  CHECK(bench.set_irqs(0x24, 2, 3, 1, std::span(&raw, 1)) == 0);
  CHECK(bench.set_irqs(0x09, 2, 3, 1) == 0);
  CHECK(bench.server->trigger(2, 3) == 0);
  CHECK(bench.server->trigger(2, 3) == 0);
  CHECK(count_of(eventfd) == 0);
  CHECK(bench.set_irqs(0x12, 2, 2, 2, {}, {std::byte{0}, std::byte{1}}) == 0);  // bool
  CHECK(count_of(eventfd) == 1);
  CHECK(bench.device.unmasked_ == std::vector<std::array<std::uint32_t, 3>>{{2, 2, 2}});
  CHECK(bench.server->trigger(2, 3) == 0);
  CHECK(count_of(eventfd) == 1);
}

TEST_CASE("INTx masks itself when raised; unmasking asks the device whether to raise again") {
  Bench bench;
  bench.negotiate();
  const auto eventfd = make_eventfd();
  const int raw = eventfd.get();
  CHECK(bench.set_irqs(0x24, 0, 0, 1, std::span(&raw, 1)) == 0);
  CHECK(bench.server->trigger(0, 0) == 0);
  CHECK(bench.server->trigger(0, 0) == 0);
  CHECK(count_of(eventfd) == 1);
  CHECK(bench.set_irqs(0x11, 0, 0, 1) == 0);
  CHECK(count_of(eventfd) == 0);  // the line may be low by now: only the device knows
  CHECK(bench.device.unmasked_.size() == 1);
  CHECK(bench.server->trigger(0, 0) == 0);
  CHECK(count_of(eventfd) == 1);
  CHECK(bench.ask(Command::device_reset, {})->error() == 0);
  CHECK(bench.server->trigger(0, 0) == 0);  // reset lowers the line and its mask
  CHECK(count_of(eventfd) == 1);
}

TEST_CASE("An eventfd for unmasking does what UNMASK does, until the index is disabled (1.2)") {
  Bench bench;
  bench.negotiate();
  const auto before = open_fds();
  const auto eventfd = make_eventfd();
  const auto resample = make_eventfd();
  const int raw = eventfd.get();
  const int raw_resample = resample.get();
  CHECK(bench.set_irqs(0x24, 0, 0, 1, std::span(&raw, 1)) == 0);
  CHECK(bench.set_irqs(0x14, 0, 0, 1, std::span(&raw_resample, 1)) == 0);
  CHECK(bench.server->trigger(0, 0) == 0);
  CHECK(bench.server->trigger(0, 0) == 0);
  CHECK(count_of(eventfd) == 1);
  const std::uint64_t one = 1;
  REQUIRE(::write(resample.get(), &one, sizeof(one)) == sizeof(one));
  bench.pump();
  CHECK(bench.device.unmasked_.size() == 1);
  CHECK(bench.server->trigger(0, 0) == 0);
  CHECK(count_of(eventfd) == 1);
  CHECK(bench.set_irqs(0x21, 0, 0, 0) == 0);
  CHECK(open_fds() == before + 2);
  REQUIRE(::write(resample.get(), &one, sizeof(one)) == sizeof(one));
  bench.pump();
  CHECK(bench.device.unmasked_.size() == 1);
}

TEST_CASE("C70 an eventfd at its maximum does not block the server") {
  Bench bench;
  bench.negotiate();
  const UniqueFd blocking(::eventfd(0, EFD_CLOEXEC));
  const int raw = blocking.get();
  CHECK(bench.set_irqs(0x24, 2, 0, 1, std::span(&raw, 1)) == 0);
  const std::uint64_t most = UINT64_MAX - 1;
  REQUIRE(::write(raw, &most, sizeof(most)) == sizeof(most));
  CHECK(bench.server->trigger(2, 0) == 0);
}

}  // namespace
}  // namespace outboard::vfio_user
