// A server that dies and comes back: what the guest's accesses, the new server and the machine see.
#include <filesystem>
#include <fstream>

#include <sys/socket.h>

#include "devices/guest_log.h"
#include "tests/unit/devices_reconnecting.h"

using namespace outboard;
using namespace outboard::devices;
using Kind = Reconnected::Kind;

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kRegister = 0x10;

std::vector<std::string> only(std::vector<std::string> all, const std::string& begin) {
  std::erase_if(all, [&](const std::string& line) { return !line.starts_with(begin); });
  return all;
}

std::size_t mappings() {
  std::ifstream maps("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find("memfd:") != line.npos;
  return count;
}

// The server stops dead at the first message of that command, with the message read.
void die_at(Script& script, Command command) {
  script.on[command] = [](protocol_test::Peer& peer, protocol_test::Incoming&) {
    peer.shut_down(SHUT_RDWR);
  };
}

void live_on(Script& script) {
  script.on.clear();
}

}  // namespace

TEST_CASE("issue 5: ready, down, reconnecting, ready again: in counters and log lines") {
  Reconnecting guest;
  guest.attach();
  CHECK(guest.function->link().state == LinkState::ready);
  guest.kill();
  CHECK(guest.downs == 1);
  CHECK(guest.function->link().state == LinkState::down);
  CHECK(guest.lines("down: ") == 1);
  guest.function->disconnect();
  guest.function->trying();
  CHECK(guest.function->link().state == LinkState::reconnecting);
  guest.function->not_yet("nobody listens");
  CHECK(guest.function->link().state == LinkState::down);
  CHECK(guest.bring_back().kind == Kind::reset);
  const LinkCounters link = guest.function->link();
  CHECK(link.state == LinkState::ready);
  CHECK(link.losses == 1);
  CHECK(link.attempts == 2);
  CHECK(link.resets == 1);
  CHECK(link.resumes == 0);
  CHECK(link.recovery.count == 1);
  CHECK(guest.lines("ready: its server is back after") == 1);
  CHECK(guest.function->config_read(0, 4) == 0x00101b36);
}

TEST_CASE("issue 5: where lines are left out, each loss that was told of is also told to be over") {
  Reconnecting guest;
  guest.attach();
  constexpr std::size_t kLosses = 2 * GuestLog::kBurst;
  for (std::size_t i = 0; i < kLosses; ++i) {
    guest.kill();
    guest.function->disconnect();
    guest.function->trying();
    guest.function->not_yet("nobody listens");
    REQUIRE(guest.bring_back().kind == Kind::reset);
  }
  CHECK(guest.lines("down: ") <= GuestLog::kBurst);
  const std::size_t losses = guest.lines("its accesses wait up to");
  CHECK(losses >= 1);
  CHECK(guest.lines("ready: its server is back after") == losses);
}

TEST_CASE("seam 2: a read under way when the server dies is asked again, and no reset is sent") {
  Reconnecting guest;
  guest.script.capabilities = resume_key(false);
  die_at(guest.script, Command::region_read);
  guest.attach();
  guest.enable_msix(1);
  InFlight read([&] { return guest.bus.read(guest.base + kRegister, 4); });
  while (guest.downs == 0) std::this_thread::yield();
  CHECK_FALSE(read.done());
  live_on(guest.script);
  guest.script.capabilities = resume_key(true);
  CHECK(guest.bring_back().kind == Kind::resumed);
  CHECK(read.value() == 0);  // what the next server has there, not all ones
  CHECK(guest.server().count_of(Command::device_reset) == 0);
  CHECK(guest.function->link().resumes == 1);
  CHECK(guest.function->link().repeated == 1);
  CHECK(guest.function->link().stall.count == 1);
}

TEST_CASE("seam 2: a write under way is made again by a server that resumes, not after a reset") {
  for (const bool resumed : {true, false}) {
    CAPTURE(resumed);
    Reconnecting guest;
    guest.script.capabilities = resume_key(false);
    guest.options.map_region[0] = false;
    die_at(guest.script, Command::region_write);
    guest.script.on[Command::region_write] = [&](protocol_test::Peer& peer,
                                                 protocol_test::Incoming& message) {
      if (message.as<vfio_user::wire::RegionAccess>().region == 7) {
        guest.server().behave(peer, message);
      } else {
        peer.shut_down(SHUT_RDWR);
      }
    };
    // Not posted: the region has a shared area.
    const auto page = protocol_test::memory_file(0x1000);
    guest.script.regions[2] = {
        3 | 4, 0x1000, 0, protocol_test::sparse_tail({{0, 0x1000}}), {page.get()}};
    guest.attach();
    guest.function->config_write(pci::kCommand, 2, 2);
    InFlight write([&] {
      guest.bus.write(guest.base + kRegister, 4, 0x2a);
      return 0;
    });
    while (guest.downs == 0) std::this_thread::yield();
    live_on(guest.script);
    guest.script.capabilities = resume_key(resumed);
    CHECK(guest.bring_back().kind == (resumed ? Kind::resumed : Kind::reset));
    write.value();
    guest.bus.read(guest.base, 4);
    CHECK(only(guest.changes(), "w0").size() == (resumed ? 1 : 0));
    CHECK(guest.server().count_of(Command::device_reset) == (resumed ? 0 : 1));
  }
}

TEST_CASE("seam 2: an access that begins while the server is gone goes to the next one") {
  Reconnecting guest;
  guest.attach();
  guest.function->config_write(pci::kCommand, 2, 2);
  guest.kill();
  InFlight write([&] {
    guest.bus.write(guest.base + kRegister, 4, 0x2a);
    return 0;
  });
  InFlight config([&] { return guest.function->config_read(kScriptVendor + 4, 4); });
  InFlight table([&] { return guest.bus.read(guest.base + kScriptTable + 12, 4); });
  guest.wait_for_waiters(3);
  guest.poke(kScriptVendor + 4, 4, 0xcafe);
  CHECK(guest.bring_back().kind == Kind::reset);
  write.value();
  CHECK(config.value() == 0xcafe);
  CHECK(table.value() == 1);
  guest.bus.read(guest.base, 4);
  CHECK(only(guest.changes(), "w0") == std::vector<std::string>{"w0 10=2a"});
}

TEST_CASE("seam 3: another id, or no key, is a reset") {
  for (const std::string& key : {resume_key(true, "ffffffffffffffffffffffffffffffff"),
                                 std::string(R"("max_msg_fds":8)"), resume_key(false)}) {
    CAPTURE(key);
    Reconnecting guest;
    guest.script.capabilities = resume_key(false);
    guest.attach();
    guest.kill();
    guest.script.capabilities = key;
    CHECK(guest.bring_back().kind == Kind::reset);
    CHECK(guest.server().count_of(Command::device_reset) == 1);
  }
}

TEST_CASE("the new server is told what the guest has: vectors before mastering, registers, power") {
  Reconnecting guest;
  guest.script.capabilities = resume_key(false);
  guest.attach();
  guest.enable_msix(2);
  guest.function->config_write(kScriptVendor + 4, 4, 0x1234);
  guest.kill();
  bool resumed = false;
  SUBCASE("resumed") {
    resumed = true;
  }
  SUBCASE("reset") {}
  guest.script.capabilities = resume_key(resumed);
  CHECK(guest.bring_back().kind == (resumed ? Kind::resumed : Kind::reset));
  std::vector<std::string> expected{"w7 54=1234", "irqs 2 0+2", "w7 42=8007", "w7 4=406"};
  if (!resumed) expected.insert(expected.begin(), "reset");
  CHECK(guest.changes() == expected);
}

TEST_CASE("vectors are muted while the server is gone; it gets fresh ones, signalled on a resume") {
  Reconnecting guest;
  guest.script.capabilities = resume_key(false);
  guest.attach();
  guest.enable_msix(2);
  CHECK(guest.msi.connected() == 2);
  guest.kill();
  guest.function->disconnect();
  CHECK(guest.msi.connected() == 0);
  CHECK(guest.msi.gsis() == 0);
  SUBCASE("resumed: what was lost on the way is made up for") {
    guest.script.capabilities = resume_key(true);
    CHECK(guest.bring_back().kind == Kind::resumed);
    CHECK(guest.msi.connected() == 2);
    CHECK(guest.msi.deliver().size() == 2);
  }
  SUBCASE("reset: nothing has happened yet") {
    CHECK(guest.bring_back().kind == Kind::reset);
    CHECK(guest.msi.connected() == 2);
    CHECK(guest.msi.deliver().empty());
  }
}

TEST_CASE("what the guest sets up while the server is gone is there when it is back") {
  Reconnecting guest;
  guest.attach();
  guest.enable_msix(1);
  guest.kill();
  guest.function->disconnect();
  InFlight masked([&] {
    guest.bus.write(guest.base + kScriptTable + 12, 4, 1);
    return 0;
  });
  guest.wait_for_waiters(1);
  CHECK(guest.bring_back().kind == Kind::reset);
  masked.value();
  CHECK(guest.msi.connected() == 0);
  guest.kill();
  InFlight moved([&] {
    guest.function->config_write(0x10, 4, 0xd0000000);
    return 0;
  });
  guest.wait_for_waiters(1);
  CHECK(guest.bring_back().kind == Kind::reset);
  moved.value();
  CHECK(guest.bus.read(0xd0000000 + kScriptTable + 12, 4) == 1);
  CHECK(guest.msi.connected() == 0);
}

TEST_CASE("shared pages are trapped while the server is gone, and then the new server's") {
  Reconnecting guest;
  const auto first = protocol_test::memory_file(0x1000);
  const auto second = protocol_test::memory_file(0x1000);
  const auto with = [&](int fd) {
    guest.script.regions[2] = {3 | 4, 0x1000, 0, protocol_test::sparse_tail({{0, 0x1000}}), {fd}};
  };
  with(first.get());
  guest.attach();
  guest.function->config_write(pci::kCommand, 2, 2);
  REQUIRE(guest.pages.slots().size() == 1);
  const std::uint64_t bar2 = guest.pages.slots()[0].at;
  guest.kill();
  guest.function->disconnect();
  CHECK(guest.pages.slots().empty());
  CHECK(guest.bus.find(Space::mmio, bar2));
  with(second.get());
  CHECK(guest.bring_back().kind == Kind::reset);
  REQUIRE(guest.pages.slots().size() == 1);
  CHECK(guest.pages.slots()[0].at == bar2);
  guest.pages.slots()[0].host[5] = std::byte{0x77};
  std::byte seen{};
  REQUIRE(::pread(second.get(), &seen, 1, 5) == 1);
  CHECK(seen == std::byte{0x77});
}

TEST_CASE("another device behind the socket is refused, with what differs, and failed for good") {
  Reconnecting guest;
  guest.attach();
  guest.kill();
  std::string part;
  SUBCASE("its id") {
    guest.poke(pci::kVendorId, 4, 0x00111b36);
    part = "its device id was 0x10 and is 0x11";
  }
  SUBCASE("a region") {
    guest.script.regions[0].size = 8192;
    part = "the size of region 0 was 0x1000 and is 0x2000";
  }
  SUBCASE("its vectors") {
    guest.script.irqs[2].count = 4;
    part = "the vectors of interrupt type 2 was 0x8 and is 0x4";
  }
  SUBCASE("the place of its MSI-X table") {
    guest.poke(kScriptMsix + 4, 4, 0x400);
    part = "the place of its MSI-X table has changed";
  }
  SUBCASE("a shared area") {
    static const auto page = protocol_test::memory_file(0x1000);
    guest.script.regions[0] = {
        3 | 4, 4096, 0, protocol_test::sparse_tail({{0, 0x1000}}), {page.get()}};
    part = "the shared areas of region 0 have changed";
  }
  std::string lost;
  const Reconnected outcome = guest.bring_back();
  CHECK(outcome.kind == Kind::refused);
  CHECK_MESSAGE(outcome.why.find(part) != std::string::npos, outcome.why);
  guest.function->give_up(outcome.why);
  CHECK(guest.function->link().state == LinkState::failed);
  CHECK(guest.lines("failed: another device") == 1);
  const auto begin = Clock::now();
  CHECK(guest.function->config_read(0, 4) == 0xffffffff);
  CHECK(Clock::now() - begin < 2s);  // the hold is 10 s
}

TEST_CASE("registers that change in use make no other device: COMMAND, BAR addresses, MSI-X bits") {
  Reconnecting guest;
  guest.attach();
  guest.kill();
  guest.poke(pci::kCommand, 2, 6);
  guest.poke(pci::kBar0, 4, 0xc0000000);
  guest.poke(kScriptMsix + 2, 2, 0xc007);
  CHECK(guest.bring_back().kind == Kind::reset);
}

TEST_CASE(
    "no access waits longer than the hold, which counts from the loss; then all ones at once") {
  Reconnecting guest(300ms);
  guest.attach();
  guest.function->config_write(pci::kCommand, 2, 2);
  guest.kill();
  const auto lost = guest.function->lost_at();
  InFlight read([&] { return guest.bus.read(guest.base, 4); });
  InFlight config([&] { return guest.function->config_read(0, 4); });
  CHECK(read.value() == 0xffffffff);
  CHECK(config.value() == 0xffffffff);
  CHECK(Clock::now() - lost >= 300ms);
  const auto begin = Clock::now();
  for (int i = 0; i < 100; ++i) CHECK(guest.bus.read(guest.base, 4) == 0xffffffff);
  guest.bus.write(guest.base, 4, 1);
  CHECK(Clock::now() - begin < 250ms);
  CHECK(guest.function->link().unserved >= 102);

  // A return after the hold is as good as any, but for what was dropped.
  CHECK(guest.bring_back().kind == Kind::reset);
  CHECK(guest.bus.read(guest.base, 4) == 0);
  CHECK(only(guest.changes(), "w0").empty());
}

TEST_CASE("an access whose servers die one after the other waits for one hold in all") {
  Reconnecting guest(400ms);
  guest.attach();
  guest.function->config_write(pci::kCommand, 2, 2);
  die_at(guest.script, Command::region_read);
  guest.kill();
  InFlight read([&] { return guest.bus.read(guest.base, 4); });
  int rounds = 0;
  while (!read.done() && rounds < 50) {
    const int before = guest.downs;
    CHECK(guest.bring_back().kind == Kind::reset);
    ++rounds;
    while (guest.downs == before && !read.done()) guest.loop.run(1);
    std::this_thread::sleep_for(20ms);  // back-off
  }
  CHECK(read.value() == 0xffffffff);
  CHECK(rounds > 1);
  CHECK(read.took() < 2s);
}

TEST_CASE("the machine ends: what waits for a server goes on at once") {
  Reconnecting guest;
  guest.attach();
  guest.function->config_write(pci::kCommand, 2, 2);
  guest.kill();
  InFlight read([&] { return guest.bus.read(guest.base, 4); });
  InFlight config([&] { return guest.function->config_read(0, 2); });
  guest.wait_for_waiters(2);
  SUBCASE("closed") {
    guest.function->close();
    CHECK(read.value() == 0xffffffff);
    CHECK(config.value() == 0xffff);
  }
  SUBCASE("paused, for a reboot") {
    guest.function->let_wait(false);
    CHECK(read.value() == 0xffffffff);
    CHECK(config.value() == 0xffff);
    guest.function->let_wait(true);
    InFlight later([&] { return guest.bus.read(guest.base, 4); });
    guest.wait_for_waiters(1);
    CHECK(guest.bring_back().kind == Kind::reset);
    CHECK(later.value() == 0);
  }
  CHECK(read.took() < 5s);
}

TEST_CASE("a machine reset while the server is gone is made up for, whatever the server resumes") {
  Reconnecting guest;
  guest.script.capabilities = resume_key(false);
  guest.attach();
  guest.enable_msix(1);
  guest.kill();
  guest.function->reset();
  guest.script.capabilities = resume_key(true);
  CHECK(guest.bring_back().kind == Kind::reset);
  CHECK(guest.changes() == std::vector<std::string>{"reset"});
  CHECK(guest.function->config_read(pci::kCommand, 2) == 0);
  guest.kill();
  CHECK(guest.bring_back().kind == Kind::resumed);  // that was once
}

TEST_CASE("seam 2: the last posted write of each offset is made again, in their order") {
  Reconnecting guest;
  guest.script.capabilities = resume_key(false);
  guest.attach();
  guest.function->config_write(pci::kCommand, 2, 2);
  for (std::uint64_t i = 0; i < 5; ++i) {
    guest.bus.write(guest.base + 0x100, 4, 0x10 + i);
    guest.bus.write(guest.base + 0x108, 4, 0x20 + i);
  }
  guest.bus.write(guest.base + 0x100, 4, 0x77);
  CHECK(guest.function->messages().posted == 11);
  guest.kill();
  SUBCASE("resumed") {
    guest.script.capabilities = resume_key(true);
    CHECK(guest.bring_back().kind == Kind::resumed);
    CHECK(only(guest.changes(), "w0") == std::vector<std::string>{"w0 108=24", "w0 100=77"});
    CHECK(guest.function->link().repeated == 2);
  }
  SUBCASE("reset: they mean nothing any more") {
    CHECK(guest.bring_back().kind == Kind::reset);
    CHECK(only(guest.changes(), "w0").empty());
    guest.kill();
    guest.script.capabilities = resume_key(true);
    CHECK(guest.bring_back().kind == Kind::resumed);
    CHECK(only(guest.changes(), "w0").empty());
  }
  SUBCASE("over two losses") {
    guest.script.capabilities = resume_key(true);
    CHECK(guest.bring_back().kind == Kind::resumed);
    guest.kill();
    CHECK(guest.bring_back().kind == Kind::resumed);
    CHECK(only(guest.changes(), "w0").empty());  // the one before had answered them
  }
}

TEST_CASE("seam 2: a posted write is not made again when a later message was answered") {
  Reconnecting guest;
  guest.script.capabilities = resume_key(false);
  guest.attach();
  guest.function->config_write(pci::kCommand, 2, 2);
  guest.bus.write(guest.base + 0x100, 4, 1);
  guest.bus.write(guest.base + 0x108, 4, 2);
  guest.bus.read(guest.base, 4);
  guest.bus.write(guest.base + 0x108, 4, 3);
  guest.kill();
  guest.script.capabilities = resume_key(true);
  CHECK(guest.bring_back().kind == Kind::resumed);
  CHECK(only(guest.changes(), "w0") == std::vector<std::string>{"w0 108=3"});
}

TEST_CASE("seam 2: beyond 256 offsets of posted writes the device is reset instead") {
  for (const std::uint64_t offsets : {256U, 257U}) {
    CAPTURE(offsets);
    Reconnecting guest;
    guest.script.capabilities = resume_key(false);
    guest.attach();
    guest.function->config_write(pci::kCommand, 2, 2);
    for (std::uint64_t i = 0; i < offsets; ++i) guest.bus.write(guest.base + 4 * i, 4, i);
    guest.kill();
    guest.script.capabilities = resume_key(true);
    CHECK(guest.bring_back().kind == (offsets == 256 ? Kind::resumed : Kind::reset));
  }
}

TEST_CASE("NVMe 1.4 §3.1.5: doorbells of before a controller was enabled anew are not rung again") {
  Reconnecting guest;
  guest.poke(pci::kRevisionId, 4, 0x01080201);
  guest.script.capabilities = resume_key(false);
  guest.attach();
  guest.function->config_write(pci::kCommand, 2, 2);
  guest.bus.write(guest.base + 0x600, 4, 17);
  guest.bus.write(guest.base + 0x14, 4, 0);
  guest.bus.write(guest.base + 0x14, 4, 1);
  guest.bus.write(guest.base + 0x608, 4, 3);
  guest.kill();
  guest.script.capabilities = resume_key(true);
  CHECK(guest.bring_back().kind == Kind::resumed);
  CHECK(only(guest.changes(), "w0") == std::vector<std::string>{"w0 608=3"});
}

TEST_CASE(
    "NVMe 1.4 §3.1.5: a controller whose server dies in its enabling is enabled by the next, with "
    "the registers that were set for it") {
  Reconnecting guest;
  guest.poke(pci::kRevisionId, 4, 0x01080201);
  guest.script.capabilities = resume_key(false);
  guest.script.on[Command::region_write] = [&](protocol_test::Peer& peer,
                                               protocol_test::Incoming& message) {
    if (message.as<vfio_user::wire::RegionAccess>().offset == 0x14) {
      peer.shut_down(SHUT_RDWR);  // and none of the others was done
    }
  };
  guest.attach();
  live_on(guest.script);
  guest.script.capabilities = resume_key(true);
  guest.function->config_write(pci::kCommand, 2, 2);
  guest.bus.write(guest.base + 0x24, 4, 0x1f001f);
  guest.bus.write(guest.base + 0x28, 4, 0x1000);
  InFlight enable([&] {
    guest.bus.write(guest.base + 0x14, 4, 1);
    return 0;
  });
  while (guest.downs == 0) guest.loop.run(10);
  CHECK(guest.bring_back().kind == Kind::resumed);
  enable.value();
  guest.bus.read(guest.base, 4);
  CHECK(only(guest.changes(), "w0") ==
        std::vector<std::string>{"w0 24=1f001f", "w0 28=1000", "w0 14=1"});
}

TEST_CASE(
    "NVMe 1.4 §5: the doorbell of a queue that was deleted and made again is not rung again") {
  Reconnecting guest;
  guest.poke(pci::kRevisionId, 4, 0x01080201);
  guest.script.capabilities = resume_key(false);
  guest.script.regions[0].size = 0x2000;
  guest.attach();
  guest.function->config_write(pci::kCommand, 2, 2);
  guest.bus.write(guest.base + 0x1008, 4, 5);
  guest.bus.write(guest.base + 0x1000, 4, 9);  // Delete I/O Submission Queue; Create
  guest.bus.write(guest.base + 0x100c, 4, 1);
  guest.kill();
  guest.script.capabilities = resume_key(true);
  CHECK(guest.bring_back().kind == Kind::resumed);
  CHECK(only(guest.changes(), "w0") == std::vector<std::string>{"w0 100c=1"});
}

TEST_CASE("slow: a deadline passes and the connection lives; the next reply ends it") {
  Reconnecting guest;
  guest.timeout = 100ms;
  std::atomic<bool> answers{false};
  guest.script.on[Command::region_read] = [&](protocol_test::Peer& peer,
                                              protocol_test::Incoming& message) {
    if (answers) guest.server().behave(peer, message);
  };
  guest.attach();
  guest.function->config_write(pci::kCommand, 2, 2);
  CHECK(guest.bus.read(guest.base, 4) == 0xffffffff);
  CHECK(guest.function->link().state == LinkState::slow);
  CHECK(guest.lines("slow: ") == 1);
  answers = true;
  CHECK(guest.bus.read(guest.base, 4) == 0);
  CHECK(guest.function->link().state == LinkState::ready);
  CHECK(guest.function->link().slow_spells == 1);
  CHECK(guest.downs == 0);
  answers = false;
  for (int i = 0; i < 3; ++i) {  // too many in a row: that server is dead
    InFlight read([&] { return guest.bus.read(guest.base, 4); });
    if (i < 2) continue;
    while (guest.downs == 0) std::this_thread::yield();
    guest.function->let_wait(false);
  }
  CHECK(guest.function->link().state == LinkState::down);
}

TEST_CASE("100 reconnects leave no descriptor, thread or mapping behind") {
  Reconnecting guest;
  const auto page = protocol_test::memory_file(0x1000);
  guest.script.capabilities = resume_key(false);
  guest.script.twin = true;
  guest.script.keep_log = true;
  guest.script.regions[2] = {
      3 | 4, 0x1000, 0, protocol_test::sparse_tail({{0, 0x1000}}), {page.get()}};
  guest.attach();
  guest.enable_msix(4);
  std::size_t fds = 0;
  std::size_t threads = 0;
  std::size_t maps = 0;
  for (int i = 0; i < 101; ++i) {
    guest.kill();
    guest.script.capabilities = resume_key(i % 2 == 0);
    guest.servers.front().reset();
    guest.servers.erase(guest.servers.begin());
    REQUIRE(guest.bring_back().kind == (i % 2 == 0 ? Kind::resumed : Kind::reset));
    REQUIRE(guest.bus.read(guest.base, 4) == 0);
    REQUIRE(guest.msi.connected() == 4);
    if (i == 0) {
      fds = protocol_test::open_fds();
      threads = protocol_test::running_threads();
      maps = mappings();
    }
  }
  CHECK(protocol_test::open_fds() == fds);
  while (protocol_test::running_threads() != threads) std::this_thread::yield();
  CHECK(mappings() == maps);
  CHECK(guest.msi.gsis() == 4);
  CHECK(guest.pages.slots().size() == 1);
  CHECK(guest.loop.watches() == 2);
  CHECK(guest.function->link().losses == 101);
}

TEST_CASE(
    "a server killed before or after it has answered any message of its start: lost, no more") {
  for (const bool answered : {false, true}) {
    CAPTURE(answered);
    Reconnecting guest;
    guest.script.capabilities = resume_key(false);
    guest.attach();
    guest.enable_msix(2);
    guest.function->config_write(kScriptVendor + 4, 4, 0x1234);
    guest.kill();
    int deaths = 0;
    for (int at = 1; at < 200; ++at) {
      CAPTURE(at);
      int seen = 0;
      const auto count = [&](protocol_test::Peer& peer, protocol_test::Incoming& message) {
        if (++seen != at) return guest.server().behave(peer, message);
        if (answered) guest.server().behave(peer, message);
        peer.shut_down(SHUT_RDWR);
      };
      guest.script.handle_config_reads = true;
      guest.script.handle_first_io_fds = true;
      for (int command = 1; command < 16; ++command) {
        guest.script.on[static_cast<Command>(command)] = count;
      }
      guest.script.capabilities = resume_key(at % 2 == 0);
      const Reconnected outcome = guest.bring_back();
      if (outcome.kind != Kind::lost) {
        if (seen < at) break;  // all messages have had their turn
        while (guest.function->link().state == LinkState::ready) guest.loop.run(10);
      }
      ++deaths;
      guest.server().stop();  // it may still be at what was sent before
      guest.function->disconnect();
      CHECK(guest.msi.connected() == 0);
      CHECK(guest.msi.gsis() == 0);
      CHECK(guest.loop.watches() == 0);
    }
    CHECK(deaths > 20);
    CHECK(guest.function->config_read(0, 4) == 0x00101b36);
    CHECK(guest.msi.connected() == 2);
  }
}

TEST_CASE("vCPUs at work while servers come and go: every read is right or, at the end, all ones") {
  Reconnecting guest;
  guest.script.keep_log = false;
  guest.attach();
  guest.enable_msix(2);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::atomic<std::uint64_t> reads{0};
  std::vector<std::thread> vcpus;
  for (std::uint32_t i = 0; i < 3; ++i) {
    vcpus.emplace_back([&, i] {
      while (!stop) {
        if (guest.bus.read(guest.base + 0x20, 4) != 0) ++wrong;
        guest.bus.write(guest.base + 0x40 + 4 * i, 4, 1);
        if (guest.function->config_read(0, 4) != 0x00101b36) ++wrong;
        guest.bus.write(guest.base + kScriptTable + 12, 4, i % 2);
        guest.function->config_write(kScriptVendor + 4, 4, i);
        ++reads;
      }
    });
  }
  for (int i = 0; i < 40; ++i) {
    const std::uint64_t until = reads + 20;
    while (reads < until) std::this_thread::yield();
    guest.kill();
    guest.servers.erase(guest.servers.begin(), guest.servers.end() - 1);
    CHECK(guest.bring_back().kind == Kind::reset);
  }
  stop = true;
  for (std::thread& vcpu : vcpus) vcpu.join();
  CHECK(wrong == 0);
  CHECK(guest.function->link().resets == 40);
}
