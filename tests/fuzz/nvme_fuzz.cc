// The NVMe controller and a guest that does anything: registers, doorbells, commands with their
// lists in guest memory, queues made and deleted, windows that come and go.
#include <memory>
#include <vector>

#include "tests/fuzz/input.h"
#include "tests/unit/nvme_guest.h"

using namespace outboard;
using namespace outboard::nvme;
using namespace outboard::nvme::test;
using fuzz::Input;
using fuzz::require;

namespace {

constexpr u64 kDiskSize = 0x20000;
constexpr u64 kMessages = 0x2000'0000;  // reached by messages only
constexpr u64 kReadOnly = 0x3000'0000;  // mapped, not writable
constexpr u64 kNowhere = 0x7000'0000;
constexpr u64 kDataBytes = 0x1'0000;
constexpr u32 kEntries = 8;
constexpr u32 kMostTurns = 400;

u64 address(Input& input) {
  static constexpr u64 kPlaces[] = {kDataAt,
                                    kDataAt + 0x1000,
                                    kListsAt,
                                    kQueuesAt,
                                    kMessages,
                                    kReadOnly,
                                    kDataAt + kDataBytes - 0x1000,
                                    kNowhere};
  if (input.one_in(16)) return input.number();
  const u64 place = input.one_of(kPlaces);
  return place + (input.one_in(4) ? input.take<u16>() : 0);
}

// A list of pages, or of descriptors, where commands may point.
void write_list(Driver& guest, Input& input) {
  const u64 at = kListsAt + input.below(4) * 0x1000 + (input.one_in(4) ? input.below(256) * 16 : 0);
  const auto list = guest.dma.memory(at, 256);
  const std::size_t count = 1 + input.below(8);
  if (input.one_in(2)) {
    for (std::size_t i = 0; i < count; ++i) {
      SglDescriptor entry{address(input),
                          input.one_in(4) ? static_cast<u32>(input.number()) : 512,
                          {},
                          static_cast<u8>(input.one_in(4) ? input.byte() : input.below(4) << 4)};
      std::memcpy(list.data() + i * sizeof entry, &entry, sizeof entry);
    }
  } else {
    for (std::size_t i = 0; i < count; ++i) {
      const u64 entry = address(input);
      std::memcpy(list.data() + i * sizeof entry, &entry, sizeof entry);
    }
  }
}

Command command(Input& input, bool admin) {
  static constexpr u8 kAdmin[] = {0x06, 0x02, 0x09, 0x0a, 0x01, 0x05,
                                  0x00, 0x04, 0x08, 0x0c, 0x7c, 0x80};
  static constexpr u8 kIo[] = {0x02, 0x01, 0x00, 0x05, 0x08, 0x09};
  Command out{};
  out.opcode = input.one_in(32) ? input.byte() : admin ? input.one_of(kAdmin) : input.one_of(kIo);
  out.flags = static_cast<u8>(input.one_in(16) ? input.byte() : input.one_in(3) ? 0x40 : 0);
  out.nsid =
      input.one_in(8) ? static_cast<u32>(input.number()) : 1 + static_cast<u32>(input.below(2));
  out.pointer1 = address(input);
  if ((out.flags & 0xc0) != 0) {
    const u32 length = input.one_in(4) ? static_cast<u32>(input.number()) : 512;
    const u32 type = static_cast<u32>(input.one_in(8) ? input.byte() : input.below(4) << 4);
    out.pointer2 = u64{length} | u64{type} << 56;
  } else {
    out.pointer2 = address(input);
  }
  if (admin) {
    const bool odd = input.one_in(3);
    out.dw10 = odd ? static_cast<u32>(input.number())
                   : (kEntries - 1) << 16 | static_cast<u32>(input.below(4));
    out.dw11 = odd ? static_cast<u32>(input.number()) : static_cast<u32>(input.below(4)) << 16 | 3;
    if (out.opcode == 0x06) out.dw10 = input.byte();
    if (out.opcode == 0x02) out.dw10 = input.byte() | u32{input.byte()} << 16;
    if (out.opcode == 0x09 || out.opcode == 0x0a) {
      out.dw10 = static_cast<u32>(input.below(16)) | (input.one_in(8) ? 1u << 31 : 0);
      out.dw11 = static_cast<u32>(input.number());
    }
  } else {
    out.dw10 = input.one_in(8) ? static_cast<u32>(input.number()) : input.byte();
    out.dw11 = input.one_in(32) ? static_cast<u32>(input.number()) : 0;
    out.dw12 =
        input.one_in(8) ? static_cast<u32>(input.number()) : static_cast<u32>(input.below(20));
    if (input.one_in(16)) out.dw12 |= 1u << 30;
  }
  if (input.one_in(16)) out.dw13 = static_cast<u32>(input.number());
  return out;
}

// The driver starts anew; it has both pairs of I/O queues, or none.
void start(Driver& guest, Input& input, bool& pairs) {
  guest.enable(kEntries);
  guest.turn_until_quiet();
  pairs = !input.one_in(8) && guest.create_pair(1, kEntries) == Status::success &&
          guest.create_pair(2, kEntries, 2) == Status::success;
}

void step(Driver& guest, Input& input, bool& pairs) {
  switch (input.below(16)) {
    default: {
      const u16 queue = static_cast<u16>(pairs ? input.below(3) : 0);
      const bool admin = queue == 0;
      for (std::size_t left = 1 + input.below(4); left > 0; --left) {
        guest.push(queue, command(input, admin));
      }
      guest.ring(queue);
      break;
    }
    case 8: {
      const u32 value = input.one_in(2) ? static_cast<u32>(input.number())
                                        : static_cast<u32>(input.below(kEntries));
      guest.write32(reg::doorbells + 4 * input.below(16), value);
      break;
    }
    case 9: {
      const u64 offset = input.one_in(4) ? input.below(0x2000) : input.below(16) * 4;
      std::byte data[64]{};
      const std::size_t size = input.one_in(4) ? input.below(sizeof data + 1) : 4;
      const auto value = input.bytes(std::min<std::size_t>(size, 8));
      std::copy(value.begin(), value.end(), data);
      guest.controller.write_bar(offset, std::span(data).first(size));
      guest.controller.read_bar(offset, std::span(data).first(size));
      break;
    }
    case 10:
      write_list(guest, input);
      break;
    case 11:
      if (input.one_in(2)) {
        guest.disable();
      } else {
        start(guest, input, pairs);
      }
      break;
    case 12:
      static_cast<void>(guest.poll(static_cast<u16>(pairs ? input.below(3) : 0), !input.one_in(4)));
      break;
    case 13: {
      guest.controller.before_window_change();
      const u64 which = input.one_in(2) ? kMessages : kReadOnly;
      if (guest.dma.memory(which, 1).empty()) {
        guest.dma.add(which, 0x4000, which != kMessages, which != kReadOnly);
      } else {
        guest.dma.remove(which);
      }
      break;
    }
    case 14: {
      // Bytes anywhere in the guest's queues and data: entries change under the controller.
      const auto at = guest.dma.memory(kQueuesAt + input.below(0x60) * 0x400 + input.byte(), 64);
      const auto bytes = input.bytes(input.below(64));
      std::copy(bytes.begin(), bytes.end(), at.begin());
      break;
    }
    case 15:
      guest.controller.reset();
      start(guest, input, pairs);
      break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  std::vector<Namespace> namespaces;
  namespaces.push_back(memory_namespace(kDiskSize));
  namespaces.push_back(memory_namespace(kDiskSize, 12, 2));
  if (input.one_in(4)) namespaces.back().read_only = true;
  Driver guest(std::move(namespaces), {}, nullptr, false);
  guest.dma.add(kQueuesAt, 0x8'0000);
  guest.dma.add(kListsAt, 0x8000);
  guest.dma.add(kDataAt, kDataBytes);
  guest.interrupts.messages = !input.one_in(4);
  guest.dma.add(kMessages, 0x4000, false, true);
  guest.dma.add(kReadOnly, 0x4000, true, false);
  bool pairs = false;
  start(guest, input, pairs);

  for (int steps = 0; steps < 64 && !input.empty(); ++steps) {
    step(guest, input, pairs);
    const u64 turns = 1 + input.below(4);
    for (u64 i = 0; i < turns; ++i) guest.controller.turn();
  }

  // Whatever happened: a reset brings back a controller that works.
  guest.controller.reset();
  guest.disable();
  for (u32 i = 0; i < kMostTurns && (guest.read32(reg::csts) & kCstsReady) != 0; ++i) {
    guest.controller.turn();
  }
  guest.enable(kEntries);
  guest.turn_until_quiet();
  require((guest.read32(reg::csts) & (kCstsReady | kCstsFatal)) == kCstsReady);
  Command identify = Driver::admin(AdminOpcode::identify);
  identify.pointer1 = kDataAt;
  identify.dw10 = 1;
  require(guest.run(0, identify).status == Status::success);
  require(!guest.controller.io_in_flight());
  require(guest.dma.memory(kReadOnly, 1).empty() ||
          guest.dma.memory(kReadOnly, 1)[0] == std::byte{0});
  return 0;
}
