// CONFORMANCE E: interrupts, as far as they are messages.
#include <set>
#include <string>

#include <fcntl.h>
#include <sys/eventfd.h>

#include "tests/protocol/check.h"
#include "tests/protocol/scripted_server.h"

namespace outboard::protocol_test {
namespace {

using Kind = Error::Kind;

constexpr std::uint32_t kArm = wire::kSetIrqsDataEventfd | wire::kSetIrqsActionTrigger;

UniqueFd event() {
  return UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

std::vector<Logged> set_irqs(const ScriptedServer& server) {
  return server.log_of(Command::device_set_irqs);
}

TEST_CASE(
    "C64 MSI-X with 0, 1 or 2048 vectors attaches, with more it does not; no EVENTFD flag, no "
    "arming") {
  const Steady steady;
  const UniqueFd fd = event();
  for (const std::uint32_t count : {0u, 1u, 2048u, 2049u, 0xffffffffu}) {
    CAPTURE(count);
    Script script;
    script.irqs[wire::kIrqMsix] = {wire::kIrqEventfd, count};
    ScriptedServer server(script);
    auto client = server.connect(quick_options());
    REQUIRE(client);
    const auto device = (*client)->attach({});
    CHECK(device.has_value() == (count <= 2048));
    if (!device) continue;
    CHECK(device->irqs[wire::kIrqMsix].count == count);
    const int one[] = {fd.get()};
    CHECK((*client)->arm_irqs(wire::kIrqMsix, 0, one).has_value() == (count > 0));
    CHECK_FALSE((*client)->arm_irqs(wire::kIrqMsix, count, one));
    CHECK_FALSE((*client)->arm_irqs(wire::kIrqMsix, 0xffffffff, one));
    CHECK_FALSE((*client)->arm_irqs(5, 0, one));
  }
  Script script;
  script.irqs[wire::kIrqMsix].flags = 0;
  ScriptedServer server(script);
  auto client = attached(server, quick_options());
  const int one[] = {fd.get()};
  const auto armed = client->arm_irqs(wire::kIrqMsix, 0, one);
  REQUIRE_FALSE(armed);
  CHECK(armed.error().message.find("eventfd") != std::string::npos);
  CHECK(set_irqs(server).empty());
}

TEST_CASE(
    "C65 512 vectors go out in messages of at most max_msg_fds, and 253, with contiguous starts") {
  const Steady steady;
  for (const std::uint32_t limit : {1u, 3u, 8u, 253u, 1000u}) {
    CAPTURE(limit);
    Script script;
    script.capabilities = "\"max_msg_fds\":" + std::to_string(limit);
    script.irqs[wire::kIrqMsix] = {wire::kIrqEventfd, 512};
    ScriptedServer server(script);
    auto client = attached(server, quick_options(20s));
    const UniqueFd fd = event();
    REQUIRE(client->arm_irqs(wire::kIrqMsix, 0, std::vector<int>(512, fd.get())));
    std::uint32_t next = 0;
    for (const Logged& entry : set_irqs(server)) {
      const auto set = entry.as<wire::SetIrqs>();
      CHECK(set.flags == kArm);
      CHECK(set.index == wire::kIrqMsix);
      CHECK(set.start == next);
      CHECK(set.count == entry.fds);
      CHECK(entry.fds <= std::min<std::size_t>(limit, 253));
      CHECK(set.argsz == sizeof set);
      CHECK(entry.payload.size() == sizeof set);  // trap: extra payload in SET_IRQS
      next += set.count;
    }
    CHECK(next == 512);
  }
}

TEST_CASE("C65 at most 16 messages with descriptors are on their way at once") {
  const Steady steady;
  Script script;
  script.irqs[wire::kIrqMsix] = {wire::kIrqEventfd, 64};
  script.capabilities = R"("max_msg_fds":1)";
  std::vector<wire::Header> held;
  bool too_many = false;
  script.on[Command::device_set_irqs] = [&](Peer& peer, Incoming& m) {
    held.push_back(m.header);
    if (held.size() < 16) return;
    too_many = too_many || peer.next(30ms).has_value();
    for (const wire::Header& header : held) peer.reply(header);
    held.clear();
  };
  ScriptedServer server(script);
  auto client = attached(server, quick_options(5s));
  const UniqueFd fd = event();
  CHECK(client->arm_irqs(wire::kIrqMsix, 0, std::vector<int>(64, fd.get())));
  client.reset();
  server.stop();
  CHECK_FALSE(too_many);
}

TEST_CASE(
    "vectors with and without an eventfd go out in separate messages, -1 with no descriptor") {
  const Steady steady;
  ScriptedServer server{Script()};
  auto client = attached(server, quick_options());
  const UniqueFd fd = event();
  const int f = fd.get();
  const int mixed[] = {f, f, -1, -1, -1, f, -1};
  REQUIRE(client->arm_irqs(wire::kIrqMsix, 1, mixed));
  const auto sent = set_irqs(server);
  REQUIRE(sent.size() == 4);
  const std::array<std::array<std::uint32_t, 3>, 4> wanted = {
      {{1, 2, 2}, {3, 3, 0}, {6, 1, 1}, {7, 1, 0}}};
  for (std::size_t i = 0; i < 4; ++i) {
    const auto set = sent[i].as<wire::SetIrqs>();
    CHECK(set.flags == kArm);
    CHECK(set.start == wanted[i][0]);
    CHECK(set.count == wanted[i][1]);
    CHECK(sent[i].fds == wanted[i][2]);
  }
  CHECK(client->arm_irqs(wire::kIrqMsix, 0, {}));
  CHECK(set_irqs(server).size() == 4);
}

TEST_CASE("C66 when one message of an arming fails, nothing that the call armed stays armed") {
  const Steady steady;
  for (int failing = 0; failing < 6; ++failing) {
    CAPTURE(failing);
    std::set<std::uint32_t> armed = {0};  // by an earlier call
    int messages = -1;
    Script script;
    script.capabilities = R"("max_msg_fds":3)";
    script.irqs[wire::kIrqMsix] = {wire::kIrqEventfd, 32};
    script.on[Command::device_set_irqs] = [&](Peer& peer, Incoming& m) {
      const auto set = m.as<wire::SetIrqs>();
      if (messages++ == failing) {
        peer.error(m.header, ENOSPC);
        return;
      }
      for (std::uint32_t v = set.start; v < set.start + set.count; ++v) {
        if (m.fds.empty()) {
          armed.erase(v);
        } else {
          armed.insert(v);
        }
      }
      peer.reply(m.header);
    };
    ScriptedServer server(script);
    auto client = attached(server, quick_options());
    const UniqueFd fd = event();
    const int one[] = {fd.get()};
    REQUIRE(client->arm_irqs(wire::kIrqMsix, 0, one));
    const auto done = client->arm_irqs(wire::kIrqMsix, 4, std::vector<int>(18, fd.get()));
    REQUIRE_FALSE(done);
    CHECK(done.error().code == ENOSPC);
    CHECK(done.error().message.find("MSI-X vectors " + std::to_string(4 + failing * 3) + " to") !=
          std::string::npos);
    CHECK(client->alive());
    client.reset();
    server.stop();
    CHECK(armed == std::set<std::uint32_t>{0});
  }
}

TEST_CASE("C67 an index is disabled by one message of count 0, and one without vectors by none") {
  const Steady steady;
  ScriptedServer server{Script()};
  auto client = attached(server, quick_options());
  CHECK(client->disable_irqs(wire::kIrqMsi));  // 0 vectors
  CHECK(client->disable_irqs(9));
  CHECK(set_irqs(server).empty());
  CHECK(client->disable_irqs(wire::kIrqIntx));
  const auto sent = set_irqs(server);
  REQUIRE(sent.size() == 1);
  const auto set = sent[0].as<wire::SetIrqs>();
  CHECK(set.flags == 0x21);
  CHECK(set.index == wire::kIrqIntx);
  CHECK(set.start == 0);
  CHECK(set.count == 0);
  CHECK(sent[0].fds == 0);
}

TEST_CASE("mask, unmask and trigger name their vectors and nothing else") {
  const Steady steady;
  ScriptedServer server{Script()};
  auto client = attached(server, quick_options());
  CHECK(client->mask_irqs(wire::kIrqMsix, 3, 1));
  CHECK(client->unmask_irqs(wire::kIrqMsix, 3, 2));
  CHECK(client->trigger_irqs(wire::kIrqMsix, 0, 8));
  CHECK(client->trigger_irqs(wire::kIrqMsix, 0, 0));  // on the wire this would disable the index
  CHECK_FALSE(client->mask_irqs(wire::kIrqMsix, 7, 2));
  CHECK_FALSE(client->unmask_irqs(wire::kIrqMsi, 0, 1));
  const auto sent = set_irqs(server);
  REQUIRE(sent.size() == 3);
  const std::array<std::array<std::uint32_t, 3>, 3> wanted = {
      {{0x09, 3, 1}, {0x11, 3, 2}, {0x21, 0, 8}}};
  for (std::size_t i = 0; i < 3; ++i) {
    const auto set = sent[i].as<wire::SetIrqs>();
    CHECK(set.flags == wanted[i][0]);
    CHECK(set.index == wire::kIrqMsix);
    CHECK(set.start == wanted[i][1]);
    CHECK(set.count == wanted[i][2]);
    CHECK(sent[i].payload.size() == 20);
  }
}

TEST_CASE(
    "C71 C72 a self-test signals exactly the selected vectors, and a full counter does no harm") {
  const Steady steady;
  std::map<std::uint32_t, UniqueFd> armed;
  Script script;
  script.on[Command::device_set_irqs] = [&](Peer& peer, Incoming& m) {
    const auto set = m.as<wire::SetIrqs>();
    for (std::uint32_t i = 0; i < set.count; ++i) {
      if (set.flags == kArm) armed[set.start + i] = std::move(m.fds[i]);
      if (set.flags == 0x21) ::eventfd_write(armed[set.start + i].get(), 1);
    }
    peer.reply(m.header);
  };
  ScriptedServer server(script);
  auto client = attached(server, quick_options());
  std::vector<UniqueFd> events;
  std::vector<int> fds;
  for (int i = 0; i < 8; ++i) {
    events.push_back(event());
    fds.push_back(events.back().get());
  }
  REQUIRE(client->arm_irqs(wire::kIrqMsix, 0, fds));
  CHECK(client->trigger_irqs(wire::kIrqMsix, 2, 3));
  for (std::size_t i = 0; i < 8; ++i) {
    eventfd_t value = 0;
    const bool signalled = ::eventfd_read(fds[i], &value) == 0;
    CHECK(signalled == (i >= 2 && i < 5));
  }
  // As a hostile server might: fills the counter, by a duplicate too, and closes what it was given.
  CHECK(::eventfd_write(armed[2].get(), 0xfffffffffffffffe) == 0);
  const UniqueFd duplicate(::fcntl(armed[3].get(), F_DUPFD_CLOEXEC, 0));
  CHECK(::eventfd_write(duplicate.get(), 0xfffffffffffffffe) == 0);
  CHECK(::eventfd_write(duplicate.get(), 1) != 0);  // full
  CHECK(client->trigger_irqs(wire::kIrqMsix, 2, 3));
  armed.clear();
  for (const std::size_t i : {2u, 3u, 4u}) {
    eventfd_t value = 0;
    CHECK(::eventfd_read(fds[i], &value) == 0);
    CHECK(value == (i == 4 ? 1 : 0xfffffffffffffffe));
  }
  CHECK(client->arm_irqs(wire::kIrqMsix, 0, fds));
  CHECK(client->trigger_irqs(wire::kIrqMsix, 2, 1));
  eventfd_t value = 0;
  CHECK(::eventfd_read(fds[2], &value) == 0);
  CHECK(client->alive());
  CHECK(client->disable_irqs(wire::kIrqMsix));
}

}  // namespace
}  // namespace outboard::protocol_test
