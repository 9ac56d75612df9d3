// The traps that cost others: each once more, alone and by its name. Two that are no messages of
// the client (an unmask on every INTx access, mapping the MSI-X page) are among the unit tests of
// devices/.
#include <string>

#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/protocol/check.h"
#include "tests/protocol/scripted_server.h"

namespace outboard::protocol_test {
namespace {

TEST_CASE(
    "trap: reset flag inverted: a device that cannot be reset gets no message 13, one that can "
    "does") {
  const Steady steady;
  for (const bool can : {false, true}) {
    CAPTURE(can);
    Script script;
    script.info.flags = wire::kDevicePci | (can ? wire::kDeviceResettable : 0);
    ScriptedServer server(script);
    CHECK(attached(server, quick_options())->reset());
    CHECK(server.count_of(Command::device_reset) == (can ? 1 : 0));
  }
}

TEST_CASE("trap: > for >= on a region index: the index that equals the count is refused here") {
  const Steady steady;
  for (const std::uint32_t count : {8u, 9u}) {
    CAPTURE(count);
    Script script;
    script.info.num_regions = count;
    ScriptedServer server(script);
    auto client = attached(server, quick_options());
    const std::size_t before = server.log().size();
    Bytes data(4);
    CHECK(client->region_read(count, 0, data).error().code == EINVAL);
    CHECK(client->region_write(count, 0, data).error().code == EINVAL);
    CHECK(client->region_io_fds(count).error().code == EINVAL);
    CHECK(client->region_read(0xffffffff, 0, data).error().code == EINVAL);
    const int none[] = {-1};
    CHECK(client->arm_irqs(5, 0, none).error().code == EINVAL);
    CHECK(server.log().size() == before);
  }
}

TEST_CASE("trap: header-only error replies: an error of 16 bytes ends the wait, with its errno") {
  const Steady steady;
  Script script;
  for (const Call& call : calls_after_attach()) {
    script.on[call.command] = [](Peer& peer, Incoming& m) { peer.error(m.header, EBUSY); };
  }
  script.on.erase(Command::device_get_region_io_fds);
  script.on.erase(Command::dma_map);
  ScriptedServer server(script);
  Memory ram(0, 4096);
  auto client = attached(server, quick_options(), {&ram.window, 1});
  for (const Call& call : calls_after_attach()) {
    if (!script.on.contains(call.command)) continue;
    CAPTURE(wire::name_of(call.command));
    const auto done = call.run(*client);
    REQUIRE_FALSE(done);
    CHECK(done.error().code == EBUSY);
    CHECK(client->alive());
  }
}

TEST_CASE(
    "trap: size minus header underflow: sizes 0 to 15 are no lengths of 4 GiB less something") {
  const Steady steady;
  for (std::uint32_t size = 0; size < 16; ++size) {
    CAPTURE(size);
    for (const bool as_reply : {true, false}) {
      Script script;
      script.on[Command::region_read] = [&](Peer& peer, Incoming& m) {
        const std::uint16_t command =
            as_reply ? m.header.command : static_cast<std::uint16_t>(Command::dma_read);
        peer.send(bytes_of(wire::Header{m.header.id, command, size,
                                        as_reply ? wire::kTypeReply : wire::kTypeCommand, 0}) +
                  Bytes(64));
      };
      ScriptedServer server(script);
      auto client = attached(server, quick_options(20s));
      Bytes data(4);
      CHECK(client->region_read(0, 0, data).error().kind == Error::Kind::protocol);
      CHECK_FALSE(client->alive());
    }
  }
}

TEST_CASE("trap: 512 fds in one message: the kernel takes 253, servers what they announce") {
  const Steady steady;
  const UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  for (const std::string capabilities : {"", "\"max_msg_fds\":8", "\"max_msg_fds\":4096"}) {
    CAPTURE(capabilities);
    Script script;
    script.capabilities = capabilities;
    script.irqs[wire::kIrqMsix] = {wire::kIrqEventfd, 512};
    ScriptedServer server(script);
    auto client = attached(server, quick_options(20s));
    REQUIRE(client->arm_irqs(wire::kIrqMsix, 0, std::vector<int>(512, event.get())));
    const std::size_t most = std::min<std::size_t>(client->server().max_msg_fds, 253);
    std::size_t all = 0;
    for (const Logged& entry : server.log_of(Command::device_set_irqs)) {
      CHECK(entry.fds <= most);
      CHECK(entry.fds == entry.as<wire::SetIrqs>().count);
      all += entry.fds;
    }
    CHECK(all == 512);
  }
}

TEST_CASE(
    "trap: a misspelt capability: ours are spelt as in the specification, a server's is ignored") {
  const Steady steady;
  Script script;
  script.capabilities = R"("max_fds":200,"max_msg_fd":100,"max_data_xfer":4,"write_multi":true)";
  ScriptedServer server(script);
  ClientOptions options = quick_options();
  options.offered.max_data_xfer_size = 65536;  // what is the default is not told
  auto client = attached(server, options);
  CHECK(client->server().max_msg_fds == 1);
  CHECK(client->server().max_data_xfer_size == 1 << 20);
  CHECK_FALSE(client->server().write_multiple);
  const Bytes asked = server.log_of(Command::version).front().payload;
  const std::string json(reinterpret_cast<const char*>(asked.data()) + 4);
  for (const std::string key :
       {"max_msg_fds", "max_data_xfer_size", "write_multiple", "twin_socket"}) {
    CAPTURE(json);
    CHECK(json.find("\"" + key + "\":") != std::string::npos);
  }
}

TEST_CASE("trap: extra payload in SET_IRQS: 20 bytes whatever the vectors, and argsz says 20") {
  const Steady steady;
  ScriptedServer server{Script()};
  auto client = attached(server, quick_options());
  const UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  CHECK(client->arm_irqs(wire::kIrqMsix, 0, std::vector<int>(8, event.get())));
  CHECK(client->arm_irqs(wire::kIrqMsix, 0, std::vector<int>(8, -1)));
  CHECK(client->mask_irqs(wire::kIrqMsix, 0, 8));
  CHECK(client->unmask_irqs(wire::kIrqMsix, 0, 8));
  CHECK(client->trigger_irqs(wire::kIrqMsix, 0, 8));
  CHECK(client->disable_irqs(wire::kIrqMsix));
  const auto sent = server.log_of(Command::device_set_irqs);
  CHECK(sent.size() == 6);
  for (const Logged& entry : sent) {
    CHECK(entry.header.size == 36);
    CHECK(entry.payload.size() == 20);
    CHECK(entry.as<wire::SetIrqs>().argsz == 20);
  }
}

TEST_CASE("trap: a skipped DMA window: memory without a file goes to the server like any other") {
  const Steady steady;
  const UniqueFd file = memory_file(1 << 16);
  Memory anonymous(0x20000, 4096);
  const DmaWindow windows[] = {{0, 1 << 16, file.get(), 0, true, true, {}},
                               anonymous.window,
                               {0x40000, 4096, file.get(), 4096, true, false, {}}};
  ScriptedServer server{Script()};
  auto client = attached(server, quick_options(), windows);
  const auto sent = server.log_of(Command::dma_map);
  REQUIRE(sent.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(sent[i].as<wire::DmaMap>().address == windows[i].address);
    CHECK(sent[i].as<wire::DmaMap>().size == windows[i].size);
    CHECK(sent[i].fds == (windows[i].fd >= 0 ? 1 : 0));
  }
}

TEST_CASE("trap: a 12-byte DMA_WRITE reply: it has 16, address and a count of 8 bytes") {
  const Steady steady;
  Script script;
  script.twin = true;
  ScriptedServer server(script);
  Memory ram(0x1000, 4096);
  auto client = attached(server, quick_options(), {&ram.window, 1});
  for (Peer* const peer : {&server.twin(), &server.peer()}) {
    const bool twin = peer == &server.twin();
    CAPTURE(twin);
    const std::uint64_t at = twin ? 0x1ff8 : 0x1800;
    CHECK(peer->request(77, Command::dma_write,
                        bytes_of(wire::DmaAccess{at, 8}) + Bytes(8, std::byte{3})));
    if (!twin) {
      const EventLoop loop(*client);
      REQUIRE(server.wait_for(Command::dma_write, 1));
      const Logged reply = server.log_of(Command::dma_write).front();
      CHECK(reply.header.size == 32);
      CHECK(reply.as<wire::DmaAccess>().address == at);
      CHECK(reply.as<wire::DmaAccess>().count == 8);
      continue;
    }
    const auto reply = peer->next();
    REQUIRE(reply);
    CHECK(reply->header.size == 32);
    CHECK(reply->header.id == 77);
    CHECK(reply->as<wire::DmaAccess>().address == at);
    CHECK(reply->as<wire::DmaAccess>().count == 8);
  }
}

}  // namespace
}  // namespace outboard::protocol_test
