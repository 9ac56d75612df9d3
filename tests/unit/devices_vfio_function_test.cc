#include <thread>

#include <doctest/doctest.h>

#include "tests/unit/devices_test_device.h"

using namespace outboard;
using namespace outboard::devices;

namespace {

using Messages = std::vector<std::string>;

constexpr std::uint32_t kCommand = pci::kCommand;

// What a guest's driver does before it uses MSI-X vector 0.
void enable_msix(Attached& guest, std::uint32_t vectors) {
  guest.cfg(kMsixCap + 2, 2, 0xc000);
  for (std::uint32_t i = 0; i < vectors; ++i) {
    const std::uint64_t at = guest.bar(0) + kTable + i * 16;
    guest.bus.write(at, 4, 0xfee00000);
    guest.bus.write(at + 8, 4, 0x4020 + i);
    guest.bus.write(at + 12, 4, 0);
  }
  guest.cfg(kMsixCap + 2, 2, 0x8000);
}

}  // namespace

TEST_CASE(
    "the header the guest reads: identity of the server, BARs and interrupt pin of the machine") {
  Attached guest;
  guest.attach();
  CHECK(guest.cfg(0) == 0x00014e58);
  CHECK(guest.cfg(8) == 0x01080201);
  CHECK(guest.cfg(pci::kInterruptPin, 1) == 1);
  CHECK(guest.cfg(kCommand, 2) == 0);
  CHECK(guest.cfg(0x10) == 0x00000004);
  CHECK(guest.cfg(0x14) == 0x00000010);
  CHECK(guest.cfg(0x18) == 0x0000c001);
  CHECK(guest.cfg(0x1c) == 0xc0000000);
  CHECK(guest.cfg(0x34, 1) == kPmCap);
  CHECK(guest.messages().empty());
}

TEST_CASE(
    "PCI 3.0 §6.2.5.1 sizing: a BAR written with ones shows its size, odd regions rounded up") {
  Attached guest;
  guest.attach();
  for (std::uint32_t reg = 0x10; reg <= 0x30; reg += 4) guest.cfg(reg, 4, 0xffffffff);
  CHECK(guest.cfg(0x10) == 0xffffc004);
  CHECK(guest.cfg(0x14) == 0xffffffff);
  CHECK(guest.cfg(0x18) == 0xffffffe1);
  CHECK(guest.cfg(0x1c) == 0xffffc000);  // 0x3000 becomes 0x4000
  CHECK(guest.cfg(0x20) == 0);
  CHECK(guest.cfg(0x24) == 0);
  CHECK(guest.cfg(0x30) == 0xfffff801);
  CHECK(guest.cfg(0x28) == 0);
  CHECK(guest.messages().empty());
}

TEST_CASE("C53 BAR accesses reach the server unsplit at their own width, and nothing else does") {
  Attached guest;
  guest.attach();
  CHECK(guest.bus.count() == 0);
  guest.cfg(kCommand, 2, 3);
  CHECK(guest.messages() == Messages{"irqs 0", "w7 4/2=3"});
  CHECK(guest.bus.count() == 3);
  const std::uint64_t base = guest.bar(0);
  for (const std::size_t size : {1, 2, 4, 8}) {
    guest.bus.write(base + 8 * size, size, 0x1122334455667788);
    guest.bus.read(base + 8 * size, size);
  }
  CHECK(guest.bus.read(base + 64, 8) == 0x1122334455667788);
  CHECK(guest.messages() == Messages{"w0 8/1=88", "r0 8/1", "w0 10/2=7788", "r0 10/2",
                                     "w0 20/4=55667788", "r0 20/4", "w0 40/8=1122334455667788",
                                     "r0 40/8", "r0 40/8"});
  guest.bus.write(0xc004, 1, 0x5a, Space::pio);
  CHECK(guest.bus.read(0xc004, 1, Space::pio) == 0x5a);
  CHECK(guest.messages() == Messages{"w2 4/1=5a", "r2 4/1"});
  const auto counters = guest.function->counters();
  CHECK(counters.bar_reads == 6);
  CHECK(counters.bar_writes == 5);
}

TEST_CASE(
    "C54 an access across the edge of shared pages is one message, whole, and overruns nothing") {
  Attached guest;
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  guest.messages();
  const std::uint64_t base = guest.bar(0);
  const auto slot = guest.pages.slots().at(0);
  CHECK(slot.at == base + 0x1000);
  guest.bus.write(base + 0xffc, 8, 0x1122334455667788);
  guest.bus.read(base + 0xffc, 8);
  guest.bus.read(base + 0xfff, 2);
  CHECK(guest.messages() == Messages{"w0 ffc/8=1122334455667788", "r0 ffc/8", "r0 fff/2"});
  CHECK(guest.bus.read(base + 0x1ffc, 8) == ~0ULL);  // half in the MSI-X table
  guest.bus.write(base + 0x1ffc, 8, 1);
  CHECK(guest.messages().empty());
  CHECK(std::ranges::all_of(slot.host, [](std::byte byte) { return byte == std::byte{0}; }));
}

TEST_CASE(
    "trap: unmask on every INTx access: only an EOI sends one, no access and no trigger does") {
  Attached guest;
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  guest.messages();
  CHECK(guest.server->trigger(0, 0) == 0);
  CHECK(guest.intx.take_trigger());
  for (int i = 0; i < 20; ++i) {
    guest.bus.write(guest.bar(0) + 8, 4, 1);
    guest.bus.read(guest.bar(0) + 8, 4);
    guest.cfg(pci::kStatus, 2);
  }
  for (const std::string& message : guest.messages()) CHECK(message.find("unmask") != 0);
  CHECK(guest.function->counters().intx_unmasks == 0);
}

TEST_CASE("C54 beyond the region, across the MSI-X table's edge: all ones and no message") {
  Attached guest;
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  guest.messages();
  CHECK(guest.bus.read(guest.bar(3) + 0x3000, 4) == 0xffffffff);
  CHECK(guest.bus.read(guest.bar(3) + 0x2ffc, 8) == ~0ULL);
  CHECK(guest.bus.read(guest.bar(0) + kTable - 4, 8) == ~0ULL);
  guest.bus.write(guest.bar(0) + kTable - 4, 8, 0);
  guest.bus.write(guest.bar(3) + 0x3ffc, 4, 0);
  CHECK(guest.messages().empty());
}

TEST_CASE("a region without READ or WRITE: all ones, dropped, no message") {
  Attached guest;
  guest.device.shape_.regions[3].flags = 0;
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  guest.cfg(pci::kRomBar, 1, 1);
  guest.messages();
  CHECK(guest.bus.read(guest.bar(3), 4) == 0xffffffff);
  guest.bus.write(guest.bar(3), 4, 1);
  guest.bus.write(guest.bar(6), 4, 1);  // the ROM cannot be written
  CHECK(guest.messages().empty());
  guest.bus.read(guest.bar(6), 4);
  CHECK(guest.messages() == Messages{"r6 0/4"});
}

TEST_CASE(
    "trap: mapping the MSI-X page: shared pages become slots while memory decoding is on, those of "
    "the MSI-X table and PBA never") {
  Attached guest;
  guest.attach();
  CHECK(guest.pages.slots().empty());
  guest.cfg(kCommand, 2, 2);
  auto slots = guest.pages.slots();
  REQUIRE(slots.size() == 1);
  CHECK(slots[0].at == guest.bar(0) + 0x1000);
  CHECK(slots[0].host.size() == 0x1000);
  CHECK(slots[0].writable);
  slots[0].host[5] = std::byte{0x77};
  std::byte seen{};
  REQUIRE(::pread(guest.device.page_file(), &seen, 1, 0x1005) == 1);
  CHECK(seen == std::byte{0x77});
  CHECK(guest.function->bars()[0].mapped == 0x1000);

  guest.cfg(0x10, 4, 0xd0000000);  // the guest moves the BAR below 4 GiB
  guest.cfg(0x14, 4, 0);
  slots = guest.pages.slots();
  REQUIRE(slots.size() == 1);
  CHECK(slots[0].at == 0xd0001000);
  CHECK(guest.bus.find(Space::mmio, 0xd0000000));
  CHECK_FALSE(guest.bus.find(Space::mmio, 0x1000000000));

  guest.cfg(kCommand, 2, 0);
  CHECK(guest.pages.slots().empty());
  CHECK(guest.bus.count() == 0);
}

TEST_CASE("map = false keeps every page of the region trapped; a refused slot does too") {
  Attached guest;
  SUBCASE("map = false") {
    guest.options.map_region[0] = false;
  }
  SUBCASE("the mapper refuses") {
    guest.pages.refuse = true;
  }
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  CHECK(guest.pages.slots().empty());
  guest.messages();
  guest.bus.read(guest.bar(0) + 0x1000, 4);
  CHECK(guest.messages() == Messages{"r0 1000/4"});
}

TEST_CASE("C45 an area beyond the end of its file stays trapped") {
  Attached guest;
  REQUIRE(::ftruncate(guest.device.page_file(), 0x1800) == 0);
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  CHECK(guest.pages.slots().empty());
}

TEST_CASE(
    "C56 COMMAND: known bits are forwarded when they change, decode toggles of a sizing stay "
    "here") {
  Attached guest;
  guest.attach();
  guest.cfg(kCommand, 2, 0xffff);
  CHECK(guest.cfg(kCommand, 2) == 0x0577);
  CHECK(guest.messages() == Messages{"w7 4/2=537"});
  guest.cfg(kCommand, 2, 0x0406);
  guest.messages();
  guest.cfg(kCommand, 2, 0x0404);
  guest.cfg(0x10, 4, 0xffffffff);
  guest.cfg(0x10, 4, 4);
  guest.cfg(kCommand, 2, 0x0406);
  CHECK(guest.messages().empty());
  guest.cfg(kCommand, 1, 0x02);  // a narrow write is merged with its other half
  CHECK(guest.messages() == Messages{"w7 4/2=402"});
  guest.cfg(kCommand, 4, 0xffff0402);  // STATUS has nothing to clear
  CHECK(guest.messages().empty());
}

TEST_CASE("C56 a config write the server refuses is logged, and the guest goes on") {
  Attached guest;
  guest.attach();
  guest.device.refuse_config = true;
  guest.cfg(kCommand, 2, 0x0406);
  CHECK(guest.cfg(kCommand, 2) == 0x0406);
  CHECK(guest.log.count("refused") == 1);
  CHECK(guest.function->counters().config_errors == 1);
  for (int i = 0; i < 50; ++i) guest.cfg(kVendorCap + 4, 4, 1);
  CHECK(guest.log.count("refused") <= 5);
  CHECK(guest.function->counters().lines_suppressed > 40);
  CHECK(guest.bus.count() == 2);
}

TEST_CASE(
    "decision 5: reads of known registers cost nothing, device-specific ones ask the server") {
  Attached guest;
  guest.attach();
  for (std::uint32_t reg = 0; reg < kMsiCap + 24; reg += 4) {
    const bool gap = (reg >= kPmCap + 8 && reg < kMsixCap) || reg == kMsixCap + 12 ||
                     (reg >= kExpressCap + 60 && reg < kMsiCap);
    if (!gap && reg != kExpressCap + 8) guest.cfg(reg);
  }
  CHECK(guest.messages().empty());
  guest.device.set(kVendorCap + 8, 4, 0xcafe0001);
  CHECK(guest.cfg(kVendorCap + 8) == 0xcafe0001);
  guest.cfg(kVendorCap + 8, 2, 0xbeef);
  CHECK(guest.cfg(kVendorCap + 8, 2) == 0xbeef);
  CHECK(guest.cfg(kExpressCap + 8) == 0x00002810);  // DevSta is the device's
  CHECK(guest.messages() == Messages{"r7 c8/4", "w7 c8/2=beef", "r7 c8/2", "r7 6a/2"});
}

TEST_CASE("id overrides replace what the guest reads") {
  Attached guest;
  guest.options.ids = {.vendor_id = 0x1234,
                       .device_id = 0x5678,
                       .subsystem_vendor_id = 0x1111,
                       .subsystem_id = 0x2222,
                       .class_code = 0x0c0330,
                       .revision_id = 9};
  guest.attach();
  CHECK(guest.cfg(0) == 0x56781234);
  CHECK(guest.cfg(8) == 0x0c033009);
  CHECK(guest.cfg(0x2c) == 0x22221111);
}

TEST_CASE("C67 INTx, MSI-X, MSI and back: the old kind is disabled before the new one is armed") {
  Attached guest;
  guest.attach();
  guest.cfg(kCommand, 2, 6);
  CHECK(guest.messages() == Messages{"irqs 0", "w7 4/2=6"});
  CHECK(guest.intx.connected());
  enable_msix(guest, 2);
  CHECK(guest.messages() == Messages{"irqs 0", "w7 52/2=c007", "irqs 2", "w7 52/2=8007"});
  CHECK_FALSE(guest.intx.connected());
  CHECK(guest.msi.routing_calls == 1);
  guest.cfg(kMsixCap + 2, 2, 0);
  CHECK(guest.messages() == Messages{"w7 52/2=7", "irqs 2", "irqs 0"});
  CHECK(guest.intx.connected());
  guest.cfg(kMsiCap + 4, 4, 0xfee00000);
  guest.cfg(kMsiCap + 12, 2, 0x4030);
  CHECK(guest.messages().empty());
  guest.cfg(kMsiCap + 2, 2, 0x0011);  // two vectors
  CHECK(guest.messages() == Messages{"irqs 0", "irqs 1", "w7 a2/2=195"});
  CHECK(guest.server->trigger(1, 1) == 0);
  CHECK(guest.msi.deliver() == std::vector<MsiMessage>{{0xfee00000, 0x4031}});
  CHECK(guest.msi.requesters == std::set<std::uint16_t>{1 << 3});
  guest.cfg(kMsiCap + 16, 4, 2);
  CHECK(guest.server->trigger(1, 1) == 0);
  CHECK(guest.msi.deliver().empty());
  CHECK(guest.cfg(kMsiCap + 20) == 2);  // pending
  guest.cfg(kMsiCap + 2, 2, 0);
  CHECK(guest.messages() == Messages{"w7 a2/2=184", "irqs 1", "irqs 0"});
}

TEST_CASE("MSI-X vectors of the server reach the guest; a masked one shows in the PBA") {
  Attached guest;
  guest.attach();
  guest.cfg(kCommand, 2, 0x406);
  enable_msix(guest, 2);
  CHECK(guest.server->trigger(2, 1) == 0);
  CHECK(guest.msi.deliver() == std::vector<MsiMessage>{{0xfee00000, 0x4021}});
  // PCIe 4.0 §2.2.6.2: bus 0, device 1, function 0.
  CHECK(guest.msi.requesters == std::set<std::uint16_t>{1 << 3});
  CHECK(guest.server->trigger(2, 5) == ENOENT);  // lazy: never used by the guest
  guest.bus.write(guest.bar(0) + kTable + 16 + 12, 4, 1);
  CHECK(guest.server->trigger(2, 1) == 0);
  CHECK(guest.msi.deliver().empty());
  guest.device.fail_reads = true;  // as servers without a PBA of their own answer
  CHECK(guest.bus.read(guest.bar(0) + kPba, 8) == 2);
  guest.messages();
  CHECK(guest.bus.read(guest.bar(0) + kPba, 8) == 2);
  CHECK(guest.messages().empty());  // not asked again
  guest.bus.write(guest.bar(0) + kTable + 16 + 12, 4, 0);
  CHECK(guest.msi.deliver().size() == 1);
  CHECK(guest.bus.read(guest.bar(0) + kPba, 8) == 0);
}

TEST_CASE("series row 14: pending bits of the server are seen too") {
  Attached guest;
  guest.attach();
  guest.cfg(kCommand, 2, 0x402);
  guest.bus.write(guest.bar(0), 8, 0x10);  // the device answers its PBA from the same cell
  CHECK(guest.bus.read(guest.bar(0) + kPba, 8) == 0x10);
}

TEST_CASE("INTx: one unmask an EOI, held back by INTX_DISABLE") {
  Attached guest;
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  guest.messages();
  const auto unmasks = [&] { return guest.function->counters().intx_unmasks; };
  const auto wait_for_unmasks = [&](std::uint64_t n) {
    while (unmasks() < n) std::this_thread::yield();
    while (true) {
      const auto seen = guest.messages();
      if (!seen.empty()) return seen;
      std::this_thread::yield();
    }
  };
  for (std::uint64_t i = 1; i <= 3; ++i) {
    CHECK(guest.server->trigger(0, 0) == 0);
    CHECK(guest.intx.take_trigger());
    CHECK(unmasks() == i - 1);
    guest.intx.eoi();
    CHECK(wait_for_unmasks(i) == Messages{"unmask 0"});
  }
  guest.cfg(kCommand, 2, 0x402);
  CHECK_FALSE(guest.intx.connected());
  CHECK(guest.server->trigger(0, 0) == 0);
  CHECK(guest.messages() == Messages{"w7 4/2=402"});
  guest.cfg(kCommand, 2, 2);
  CHECK(guest.intx.connected());
  CHECK(guest.intx.take_trigger());  // kept while it was disabled
}

TEST_CASE("no interrupt line for the slot: pin 0, INTx never armed") {
  Attached guest;
  guest.options.intx_gsi.reset();
  guest.attach();
  CHECK(guest.cfg(pci::kInterruptPin, 1) == 0);
  guest.cfg(kCommand, 2, 6);
  CHECK(guest.messages() == Messages{"w7 4/2=6"});
}

TEST_CASE("C98 machine reset: interrupts off, BARs back, decoding off, one DEVICE_RESET") {
  Attached guest;
  guest.attach();
  guest.cfg(kCommand, 2, 0x406);
  enable_msix(guest, 1);
  guest.cfg(0x1c, 4, 0xd0000000);
  guest.cfg(kPmCap + 4, 2, 3);
  guest.messages();
  guest.function->reset();
  CHECK(guest.messages() ==
        Messages{"w7 52/2=7", "irqs 2", "w7 4/2=0", "w7 44/2=0", "reset", "bulk"});
  CHECK(guest.bus.count() == 0);
  CHECK(guest.pages.slots().empty());
  CHECK(guest.msi.gsis() == 0);
  CHECK(guest.cfg(0x1c) == 0xc0000000);
  CHECK(guest.cfg(kCommand, 2) == 0);
  CHECK(guest.cfg(kMsixCap + 2, 2) == 7);
  guest.cfg(kCommand, 2, 0x402);
  CHECK(guest.bus.read(guest.bar(0) + kTable + 12, 4) == 1);  // masked again
  guest.function->reset();
  CHECK(std::ranges::count(guest.messages(), "reset") == 1);
}

TEST_CASE("PCIe 4.0 §6.6.2 function level reset: forwarded once, interrupts and decoding off") {
  Attached guest;
  guest.attach();
  guest.cfg(kCommand, 2, 0x406);
  enable_msix(guest, 1);
  guest.messages();
  guest.cfg(kExpressCap + 8, 2, 0xa810);
  CHECK(guest.messages() == Messages{"w7 52/2=7", "irqs 2", "w7 68/2=a810", "bulk", "w7 4/2=0"});
  CHECK(guest.cfg(kExpressCap + 8, 2) == 0x2810);
  CHECK(guest.cfg(kCommand, 2) == 0);
  CHECK(guest.bus.count() == 0);
  guest.messages();
  guest.cfg(kExpressCap + 8, 2, 0x2010);  // anything but FLR stays here
  CHECK(guest.messages().empty());
}

TEST_CASE("power states reach the server") {
  Attached guest;
  guest.attach();
  guest.cfg(kPmCap + 4, 2, 3);
  guest.cfg(kPmCap + 4, 2, 3);
  guest.cfg(kPmCap + 4, 4, 0);
  CHECK(guest.messages() == Messages{"w7 44/2=3", "w7 44/2=0"});
}

TEST_CASE("C52 a read the server refuses is all ones, logged a few times, and counted") {
  Attached guest;
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  guest.device.fail_reads = true;
  for (int i = 0; i < 20; ++i) CHECK(guest.bus.read(guest.bar(0), 4) == 0xffffffff);
  CHECK(guest.log.count("read of 4 bytes") == 5);
  CHECK(guest.function->counters().access_errors == 20);
  guest.device.fail_reads = false;
  CHECK(guest.bus.read(guest.bar(0), 4) == 0);
}

TEST_CASE("C74 C96 the server dies: interrupts taken down, watches gone, all ones from then on") {
  Attached guest;
  std::string lost;
  guest.options.on_lost = [&](const vfio_user::Error& error) { lost = error.message; };
  guest.attach();
  guest.cfg(kCommand, 2, 0x406);
  enable_msix(guest, 2);
  const std::uint64_t base = guest.bar(0);
  guest.server->stop();
  for (int i = 0; i < 100 && lost.empty(); ++i) guest.loop.run(100);
  CHECK_FALSE(lost.empty());
  CHECK(guest.msi.connected() == 0);
  CHECK(guest.msi.gsis() == 0);
  CHECK(guest.loop.watches() == 0);
  CHECK(guest.pages.slots().empty());
  CHECK(guest.bus.read(base, 4) == 0xffffffff);
  CHECK(guest.cfg(0) == 0xffffffff);
  guest.cfg(kCommand, 2, 6);
  guest.function->reset();
  CHECK(guest.cfg(0, 2) == 0xffff);
}

TEST_CASE("C73 REQ and ERR of the server are counted, logged a few times, and reach the machine") {
  Attached guest;
  int removals = 0;
  int errors = 0;
  guest.options.on_removal_request = [&] { ++removals; };
  guest.options.on_device_error = [&] { ++errors; };
  guest.attach();
  CHECK(guest.server->trigger(4, 0) == 0);
  guest.loop.run(1000);
  CHECK(removals == 1);
  CHECK(errors == 0);
  CHECK(guest.server->trigger(3, 0) == 0);
  guest.loop.run(1000);
  CHECK(errors == 1);
  CHECK(guest.function->counters().removal_requests == 1);
  CHECK(guest.function->counters().device_errors == 1);
  CHECK(guest.log.count("asks for its removal") == 1);
  CHECK(guest.log.count("reports an unrecoverable error") == 1);

  // Twice before anybody looks: two signals, one call.
  CHECK(guest.server->trigger(3, 0) == 0);
  CHECK(guest.server->trigger(3, 0) == 0);
  guest.loop.run(1000);
  CHECK(guest.function->counters().device_errors == 3);
  CHECK(errors == 2);
}

TEST_CASE(
    "C70 C73 a server that signals ERR and REQ without an end: the loop goes on, the log is "
    "short") {
  Attached guest;
  int called = 0;
  guest.options.on_removal_request = [&] { ++called; };
  guest.options.on_device_error = [&] { ++called; };
  guest.attach();
  for (int i = 0; i < 200; ++i) {
    CHECK(guest.server->trigger(3, 0) == 0);
    CHECK(guest.server->trigger(4, 0) == 0);
    guest.loop.run(1000);
  }
  for (int i = 0; i < 3; ++i) guest.loop.run();
  const auto counters = guest.function->counters();
  CHECK(counters.device_errors == 200);
  CHECK(counters.removal_requests == 200);
  CHECK(called >= 200);
  CHECK(guest.log.count("its server") <= 10);  // 5 in 10 s
  CHECK(counters.lines_suppressed > 100);
}

TEST_CASE("C50 a BAR moves while other vCPUs use it: every access lands or reads all ones") {
  Attached guest;
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  guest.bus.write(guest.bar(3) + 8, 4, 0x600df00d);
  const std::uint64_t places[] = {0xc8000000, 0xd0000000};
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        for (const std::uint64_t base : places) {
          const auto value = guest.bus.read(base + 8, 4);
          if (value != 0x600df00d && value != 0xffffffff) ++wrong;
        }
      }
    });
  }
  for (int i = 0; i < 200; ++i) {
    guest.cfg(0x1c, 4, static_cast<std::uint32_t>(places[i % 2]));
    if (i % 10 == 0) {
      guest.cfg(kCommand, 2, 0);
      guest.cfg(kCommand, 2, 2);
    }
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(wrong == 0);
  CHECK(guest.bus.count() == 2);
}
