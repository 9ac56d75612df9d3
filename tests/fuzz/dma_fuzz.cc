// DMA requests of a server, answered from windows that come and go, against a model that asks of
// every byte which window it lies in.
#include <array>
#include <cerrno>
#include <optional>
#include <vector>

#include "tests/fuzz/files.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/memory_transport.h"
#include "vfio_user/codec.h"
#include "vfio_user/dma_server.h"

using namespace outboard;
using namespace outboard::vfio_user;
using fuzz::Input;
using fuzz::require;

namespace {

constexpr std::uint64_t kSpace = 0x1000;  // addresses in play, from kBase on
constexpr std::uint64_t kMostBytes = 0x200;
constexpr std::uint32_t kMostWindows = 5;

struct Model {
  struct Byte {
    bool mapped = false;
    bool readable = false;
    bool writable = false;
    bool here = false;
  };
  std::array<Byte, kSpace> bytes{};
  std::vector<std::byte> memory = std::vector<std::byte>(kSpace);
  std::vector<DmaWindow> windows;
};

void change_windows(Input& input, std::uint64_t base, Model& model, DmaServer& server) {
  DmaWindow window;
  const bool odd = input.one_in(8);
  window.address = odd ? input.number() : base + input.below(32) * 0x80;
  window.size = odd ? input.number() : input.below(9) * 0x80;
  window.readable = !input.one_in(4);
  window.writable = !input.one_in(4);
  const std::uint64_t at = window.address - base;
  const bool fits = at < kSpace && window.size <= kSpace - at;
  if (fits && !input.one_in(4)) window.host = std::span(model.memory).subspan(at, window.size);
  if (window.host.empty() && odd && input.one_in(4)) window.host = std::span(model.memory).first(8);

  if (input.one_in(3)) {
    const auto same = [&](const DmaWindow& other) {
      return other.address == window.address && other.size == window.size;
    };
    const bool known = std::erase_if(model.windows, same) == 1;
    require(server.has(window.address, window.size) == known);
    require(server.remove(window.address, window.size) == known);
    for (std::uint64_t i = 0; known && fits && i < window.size; ++i) model.bytes[at + i] = {};
    return;
  }
  // Two windows overlap when one begins in the other.
  bool good = window.size > 0 && window.address + (window.size - 1) >= window.address &&
              (window.host.empty() || window.host.size() == window.size) &&
              model.windows.size() < kMostWindows;
  for (const DmaWindow& other : model.windows) {
    good = good && other.address - window.address >= window.size &&
           window.address - other.address >= other.size;
  }
  require(server.add(window, kMostWindows).has_value() == good);
  if (!good) return;
  model.windows.push_back(window);
  // A window outside the space in play, or across its edge, has no bytes in the model.
  for (std::uint64_t i = 0; fits && i < window.size; ++i) {
    model.bytes[at + i] = {true, window.readable, window.writable, !window.host.empty()};
  }
}

void request(Input& input, std::uint64_t base, Model& model, const DmaServer& server) {
  const bool write = input.one_in(2);
  IncomingMessage message;
  message.header.id = input.take<std::uint16_t>();
  message.header.command =
      static_cast<std::uint16_t>(write ? wire::Command::dma_write : wire::Command::dma_read);
  if (input.one_in(32)) message.header.command = input.take<std::uint16_t>();
  if (input.one_in(8)) message.header.flags = wire::kNoReply;
  const bool known = DmaServer::is_dma(message.header);
  const bool is_write =
      message.header.command == static_cast<std::uint16_t>(wire::Command::dma_write);

  wire::DmaAccess access{
      input.one_in(16) ? input.number() : base + input.take<std::uint16_t>() % (kSpace + 64),
      input.one_in(16) ? input.number() : input.below(kMostBytes + 64)};
  std::vector<std::byte> payload;
  fuzz::append(payload, access);
  const auto given = std::min(access.count, kMostBytes + 64);
  if (write) {
    fuzz::append(payload, input.bytes(std::min<std::uint64_t>(given, 16)));
    payload.resize(sizeof access + given);
  }
  if (input.one_in(16)) payload.resize(input.below(64));
  if (input.one_in(32)) message.fds.push_back(fuzz::event());
  message.payload = payload;
  message.header.size = static_cast<std::uint32_t>(sizeof(wire::Header) + payload.size());

  const bool whole = payload.size() == sizeof access + (is_write ? access.count : 0);
  bool allowed =
      known && whole && message.fds.empty() && access.count > 0 && access.count <= kMostBytes;
  bool judged = true;  // the model knows every byte of it
  for (std::uint64_t i = 0; allowed && i < access.count; ++i) {
    const std::uint64_t at = access.address + i - base;
    if (at >= kSpace) {
      for (const DmaWindow& window : model.windows) {
        if (access.address + i - window.address < window.size) judged = false;
      }
      allowed = false;
    } else {
      const Model::Byte byte = model.bytes[at];
      if (!byte.mapped) {
        for (const DmaWindow& window : model.windows) {
          if (access.address + i - window.address < window.size) judged = false;
        }
      }
      allowed = byte.mapped && byte.here && (is_write ? byte.writable : byte.readable);
    }
  }
  const std::vector<std::byte> before = model.memory;
  std::vector<std::byte> reply;
  server.serve(message, reply);
  if (!allowed || !is_write) require(model.memory == before);
  if (message.header.flags == wire::kNoReply) {
    require(reply.empty());
    return;
  }
  const auto header = read_struct<wire::Header>(reply);
  require(header && header->size == reply.size() && header->id == message.header.id);
  require(header->command == message.header.command);
  const bool refused = (header->flags & wire::kError) != 0;
  require(!judged || refused == !allowed);
  require(!refused || (header->error > 0 && reply.size() == sizeof(wire::Header)));
  if (refused) return;
  const auto got = std::span(reply).subspan(sizeof(wire::Header));
  const auto echoed = read_struct<wire::DmaAccess>(got);
  require(echoed && echoed->address == access.address && echoed->count == access.count);
  const auto there = std::span(model.memory).subspan(access.address - base, access.count);
  const auto bytes = is_write ? std::span<const std::byte>(payload).subspan(sizeof access)
                              : std::span<const std::byte>(got).subspan(sizeof access);
  require(std::ranges::equal(there, bytes));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  static constexpr std::uint64_t kBases[] = {0x10'0000, 0, 0 - kSpace};
  const std::uint64_t base = input.one_of(kBases);
  DmaServer server(kMostBytes);
  Model model;
  for (std::size_t i = 0; i < model.memory.size(); ++i) model.memory[i] = static_cast<std::byte>(i);
  for (int step = 0; step < 64 && !input.empty(); ++step) {
    if (input.one_in(3)) {
      change_windows(input, base, model, server);
    } else {
      request(input, base, model, server);
    }
  }
  return 0;
}
