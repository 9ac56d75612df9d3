// CONFORMANCE G: requests of the server.
#include <cerrno>

#include <sys/socket.h>

#include "tests/chaos/tell.h"

namespace outboard::chaos {
namespace {

using When = Lie::When;
using Outcome = Lie::Outcome;

// Somewhere in the guest's memory, below 1 MiB.
constexpr std::uint64_t kMemory = 0x9000;
constexpr std::size_t kFixed = sizeof(wire::DmaAccess);

Bytes access(std::uint64_t address, std::uint64_t count) {
  return bytes_of(wire::DmaAccess{address, count});
}

// With a reply: before it, when the machine still waits, and after it.
Tell around_read(std::function<void(Stage&, std::uint16_t id)> before,
                 std::function<void(Stage&)> after = {}) {
  return at_read_reply(
      [before = std::move(before), after = std::move(after)](Stage& stage, Event& event) {
        before(stage, event.message.header.id);
        stage.tap.pass(event);
        if (after) after(stage);
      });
}

Tell refused(Command command, Bytes payload, std::uint32_t error) {
  return around_read([command, payload = std::move(payload), error](Stage& stage, std::uint16_t) {
    stage.ask(command, payload, error);
  });
}

// A twin socket of our own, and a request on it once the machine is at work.
Told ask_on_twin(Stage& stage, Event& event) {
  if (is_reply_to(event, Command::version)) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return Told::not_yet;
    stage.twin.reset(ends[0]);
    event.message.fds.clear();
    event.message.fds.emplace_back(ends[1]);
    edit_version(event.message, [](nlohmann::json& json) {
      json["twin_socket"] = {{"supported", true}, {"fd_index", 0}};
    });
    stage.tap.pass(event);
    return Told::handled;
  }
  if (!is_reply_to(event, Command::region_read) ||
      event.message.as<wire::RegionAccess>().region != 0) {
    return Told::not_yet;
  }
  Peer twin(std::move(stage.twin));
  twin.request(7, Command::dma_read, access(kMemory, 64));
  stage.ask(Command::dma_read, access(kMemory, 32), 0, kFixed + 32);
  const auto answer = twin.next();
  if (!answer || answer->header.error != 0 || answer->payload.size() != kFixed + 64) {
    stage.failure = "no good answer on the twin socket";
  }
  stage.twin = UniqueFd(::dup(twin.fd()));
  stage.tap.pass(event);
  return Told::done;
}

}  // namespace

std::vector<Lie> lies_in_requests() {
  std::vector<Lie> out = {
      {"C82", "DMA while a request is under way, with its id", When::running, Outcome::goes_on,
       around_read([](Stage& stage, std::uint16_t id) {
         stage.ask(Command::dma_read, access(kMemory, 64), 0, kFixed + 64, id);
       })},
      {"C82", "DMA before VERSION is answered", When::attaching, Outcome::goes_on,
       at_reply(Command::version,
                [](Stage& stage, Event& event) {
                  stage.ask(Command::dma_read, access(kMemory, 4), EFAULT);
                  stage.tap.pass(event);
                })},
      {"C83", "DMA on both sockets", When::attaching, Outcome::goes_on, ask_on_twin},
      {"C85", "a write whose size is not that of its data", When::running, Outcome::goes_on,
       refused(Command::dma_write, access(kMemory, 16) + Bytes(4), EINVAL)},
      {"C85", "a read with data", When::running, Outcome::goes_on,
       refused(Command::dma_read, access(kMemory, 4) + Bytes(4), EINVAL)},
      {"C85", "half a request", When::running, Outcome::goes_on,
       refused(Command::dma_read, Bytes(8), EINVAL)},
      {"C86", "a request with descriptors", When::running, Outcome::goes_on,
       around_read([](Stage& stage, std::uint16_t) {
         const UniqueFd file = shared_file(4096);
         const int fd = file.get();
         stage.ask(Command::dma_read, access(kMemory, 4), EINVAL, 0, 0x7001, std::span(&fd, 1));
       })},
      {"C86", "a request that wants no reply", When::running, Outcome::goes_on,
       around_read([](Stage& stage, std::uint16_t) {
         stage.tap.client().request(9, Command::dma_read, access(kMemory, 4), {}, wire::kNoReply);
       })},
      {"C88", "memory read and written back", When::running, Outcome::goes_on,
       around_read([](Stage& stage, std::uint16_t) {
         stage.ask(Command::dma_read, access(kMemory, 512), 0, kFixed + 512);
         stage.ask(Command::dma_write, access(0x9f000, 16) + Bytes(16), 0, kFixed);
       })},
      {"C89", "a hundred thousand requests, and no reply is read", When::running, Outcome::dropped,
       at_read_reply([](Stage& stage, Event&) {
         stage.stop_listening();
         for (int i = 0; i < 100000; ++i) {
           if (!stage.tap.client().request(1, Command::dma_read, access(kMemory, 4096))) return;
         }
       })},
  };
  const std::uint64_t top = ~std::uint64_t{0};
  const std::vector<std::tuple<const char*, std::uint64_t, std::uint64_t, std::uint32_t>> ranges = {
      {"of a hole", 0xd0000000, 8, EFAULT},
      {"of the interrupt controller", 0xfee00000, 4, EFAULT},
      {"over the end of all addresses", top - 3, 8, EFAULT},
      {"of nothing", kMemory, 0, EINVAL},
      {"of more than a message holds", kMemory, std::uint64_t{1} << 40, E2BIG},
      {"of 2^63 bytes", kMemory, std::uint64_t{1} << 63, E2BIG},
  };
  for (const auto& [what, address, count, error] : ranges) {
    out.push_back({"C84", std::string("DMA ") + what, When::running, Outcome::goes_on,
                   refused(Command::dma_read, access(address, count), error)});
  }
  for (const unsigned command : {0, 1, 2, 4, 8, 9, 10, 13, 15, 16, 18, 19, 65535}) {
    out.push_back({"C87", "command " + std::to_string(command), When::running, Outcome::goes_on,
                   refused(Command{static_cast<std::uint16_t>(command)}, Bytes(16), ENOSYS)});
  }
  return out;
}

}  // namespace outboard::chaos
