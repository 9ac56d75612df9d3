#include <string>

#include <doctest/doctest.h>

#include "tests/unit/nvme_guest.h"

namespace outboard::nvme::test {
namespace {

Driver two_namespaces() {
  std::vector<Namespace> all;
  all.push_back(memory_namespace(1 << 20, 9, 1));
  all.push_back(memory_namespace(1 << 22, 12, 2));
  all.back().read_only = true;
  ControllerOptions options;
  options.identity.serial = "S1";
  options.identity.firmware = "1.2";
  return Driver(std::move(all), std::move(options));
}

Command ask(u32 cns, u32 nsid = 0, u32 dw11 = 0) {
  Command command = Driver::admin(AdminOpcode::identify);
  command.nsid = nsid;
  command.dw10 = cns;
  command.dw11 = dw11;
  command.pointer1 = kDataAt;
  return command;
}

std::string text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

TEST_CASE("NVMe 1.4 §5.15.2.2 Identify Controller") {
  Driver guest = two_namespaces();
  guest.enable();
  REQUIRE(guest.run(0, ask(1)).status == Status::success);
  const auto data = guest.data();
  CHECK(text(data.subspan(4, 20)) == "S1                  ");
  CHECK(text(data.subspan(64, 8)) == "1.2     ");
  CHECK(get<u8>(data, 77) == 8);         // MDTS: 1 MiB
  CHECK(get<u32>(data, 80) == 0x10400);  // VER equals VS
  CHECK(get<u16>(data, 256) == 2);       // OACS: Format NVM only
  CHECK(get<u8>(data, 512) == 0x66);
  CHECK(get<u8>(data, 513) == 0x44);
  CHECK(get<u32>(data, 516) == 2);            // NN
  CHECK((get<u16>(data, 520) & 0xd) == 0xd);  // compare, dataset management, write zeroes
  CHECK((get<u8>(data, 525) & 1) == 0);       // no volatile cache in memory
  CHECK(get<u32>(data, 536) != 0);            // SGLs
  CHECK(text(data.subspan(768, 12)) == "nqn.2014-08.");
}

TEST_CASE("NVMe 1.4 §5.15.2.1 Identify Namespace: sizes in blocks, formats, write protection") {
  Driver guest = two_namespaces();
  guest.enable();
  REQUIRE(guest.run(0, ask(0, 1)).status == Status::success);
  CHECK(get<u64>(guest.data(), 0) == (1 << 20) / 512);
  CHECK(get<u8>(guest.data(), 25) == 1);  // two formats
  CHECK(get<u8>(guest.data(), 26) == 0);
  CHECK(get<u8>(guest.data(), 99) == 0);
  CHECK((get<u8>(guest.data(), 33) & 7) == 1);                    // deallocated blocks read zeros
  CHECK((get<u32>(guest.data(), 128) & 0xff'ffff) == 9u << 16);   // no metadata, 512
  CHECK((get<u32>(guest.data(), 132) & 0xff'ffff) == 12u << 16);  // no metadata, 4096
  REQUIRE(guest.run(0, ask(0, 2)).status == Status::success);
  CHECK(get<u64>(guest.data(), 0) == (1 << 22) / 4096);
  CHECK(get<u8>(guest.data(), 26) == 1);
  CHECK(get<u8>(guest.data(), 99) == 1);
}

TEST_CASE("NVMe 1.4 §5.15.1 every CNS that Linux and nvme-cli ask for") {
  Driver guest = two_namespaces();
  guest.enable();
  struct Case {
    u32 cns, nsid, dw11;
    Status status;
  };
  const Case cases[] = {
      {0x00, 0, 0, Status::invalid_namespace},
      {0x00, 3, 0, Status::invalid_namespace},
      {0x00, kBroadcastNamespace, 0, Status::success},
      {0x02, 0, 0, Status::success},
      {0x02, 0xffff'fffe, 0, Status::invalid_namespace},
      {0x02, 0xffff'ffff, 0, Status::invalid_namespace},
      {0x03, 1, 0, Status::success},
      {0x03, 0, 0, Status::invalid_namespace},
      {0x03, kBroadcastNamespace, 0, Status::invalid_namespace},
      {0x04, 0, 0, Status::invalid_field},
      {0x05, 1, 0, Status::success},
      {0x05, 1, 2u << 24, Status::invalid_field},  // zoned: not here
      {0x06, 0, 0, Status::success},
      {0x06, 0, 1u << 24, Status::invalid_field},
      {0x08, 1, 0, Status::invalid_field},
      {0x10, 0, 0, Status::success},
      {0x11, 1, 0, Status::success},
      {0x11, 9, 0, Status::invalid_namespace},
      {0x12, 1, 0, Status::success},
      {0x12, 9, 0, Status::invalid_field},
      {0x13, 0, 0, Status::success},
      {0x14, 0, 0, Status::invalid_field},
      {0x17, 0, 0, Status::invalid_field},
      {0xff, 0, 0, Status::invalid_field},
  };
  for (const Case& c : cases) {
    INFO("CNS " << c.cns << " NSID " << c.nsid);
    CHECK(guest.run(0, ask(c.cns, c.nsid, c.dw11)).status == c.status);
  }
}

TEST_CASE("NVMe 1.4 §5.15.2.4 active namespaces are listed from NSID + 1") {
  Driver guest = two_namespaces();
  guest.enable();
  REQUIRE(guest.run(0, ask(2, 0)).status == Status::success);
  CHECK(get<u32>(guest.data(), 0) == 1);
  CHECK(get<u32>(guest.data(), 4) == 2);
  CHECK(get<u32>(guest.data(), 8) == 0);
  REQUIRE(guest.run(0, ask(2, 1)).status == Status::success);
  CHECK(get<u32>(guest.data(), 0) == 2);
  CHECK(get<u32>(guest.data(), 4) == 0);
}

TEST_CASE("NVMe 1.4 §5.15.2.3 namespace descriptors: EUI-64, NGUID and UUID, stable and distinct") {
  Driver guest = two_namespaces();
  guest.enable();
  std::vector<std::vector<std::byte>> lists;
  for (const u32 nsid : {1u, 2u, 1u}) {
    REQUIRE(guest.run(0, ask(3, nsid)).status == Status::success);
    const auto data = guest.data();
    CHECK(get<u8>(data, 0) == 1);
    CHECK(get<u8>(data, 1) == 8);
    CHECK(get<u8>(data, 12) == 2);
    CHECK(get<u8>(data, 13) == 16);
    CHECK(get<u8>(data, 32) == 3);
    CHECK(get<u8>(data, 33) == 16);
    CHECK(get<u32>(data, 52) == 0);  // the end
    lists.emplace_back(data.begin(), data.begin() + 52);
  }
  CHECK(lists[0] == lists[2]);
  CHECK(lists[0] != lists[1]);
}

}  // namespace outboard::nvme::test
