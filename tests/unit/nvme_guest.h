// A guest for tests of the NVMe controller: memory windows, interrupts, and a driver that fills
// submission queues and reads completion queues by hand. No socket, no files.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "tools/nvme/bytes.h"
#include "tools/nvme/controller.h"
#include "tools/nvme/memory_backend.h"

namespace outboard::nvme::test {

class FakeDma final : public GuestDma {
 public:
  struct Window {
    std::vector<std::byte> bytes;
    bool mapped = true;  // else only read() and write() reach it
    bool writable = true;
  };

  void add(u64 base, u64 size, bool mapped = true, bool writable = true) {
    windows_[base] = Window{std::vector<std::byte>(size), mapped, writable};
  }
  void remove(u64 base) { windows_.erase(base); }

  std::span<std::byte> translate(u64 address, u64 size, Access access) override {
    Window* window = nullptr;
    const auto bytes = find(address, size, access, window);
    return window != nullptr && window->mapped ? bytes : std::span<std::byte>{};
  }
  bool read(u64 address, std::span<std::byte> into) override {
    while (!into.empty()) {
      Window* window = nullptr;
      const u64 count = std::min<u64>(into.size(), 4096 - address % 4096);
      const auto bytes = find(address, count, Access::read, window);
      if (window == nullptr) return false;
      std::memcpy(into.data(), bytes.data(), count);
      into = into.subspan(count);
      address += count;
    }
    return true;
  }
  bool write(u64 address, std::span<const std::byte> from) override {
    while (!from.empty()) {
      Window* window = nullptr;
      const u64 count = std::min<u64>(from.size(), 4096 - address % 4096);
      const auto bytes = find(address, count, Access::write, window);
      if (window == nullptr) return false;
      std::memcpy(bytes.data(), from.data(), count);
      from = from.subspan(count);
      address += count;
    }
    return true;
  }

  // The guest's own view, whatever the device may do there.
  std::span<std::byte> memory(u64 address, u64 size) {
    Window* window = nullptr;
    return find(address, size, Access::read, window);
  }

 private:
  std::span<std::byte> find(u64 address, u64 size, Access access, Window*& window) {
    window = nullptr;
    auto next = windows_.upper_bound(address);
    if (next == windows_.begin()) return {};
    auto& [base, candidate] = *std::prev(next);
    const u64 offset = address - base;
    if (size == 0 || offset >= candidate.bytes.size() || size > candidate.bytes.size() - offset) {
      return {};
    }
    if (access == Access::write && !candidate.writable) return {};
    window = &candidate;
    return std::span(candidate.bytes).subspan(offset, size);
  }
  std::map<u64, Window> windows_;
};

class FakeInterrupts final : public Interrupts {
 public:
  bool message_signalled() const override { return messages; }
  void raise(u16 vector) override { ++raised[vector]; }
  void set_pin(bool asserted) override { pin = asserted; }

  bool messages = true;
  std::map<u16, u32> raised;
  bool pin = false;
};

// Guest-physical layout of the driver below.
inline constexpr u64 kRam = 0x10'0000;  // mapped, writable
inline constexpr u64 kRamSize = 0x120'0000;
inline constexpr u64 kQueuesAt = kRam;             // 128 KiB for each pair
inline constexpr u64 kListsAt = kRam + 0x90'0000;  // PRP lists, SGL segments
inline constexpr u64 kDataAt = kRam + 0xa0'0000;
inline constexpr u64 kDataSize = 0x80'0000;

struct Answer {
  Status status;
  u32 dw0;
  bool final;  // do not retry
};

class Driver {
 public:
  // With a `saved` that nobody has used before, the controller leaves its state there. Without its
  // memory the caller adds windows for what it uses of the layout above.
  explicit Driver(std::vector<Namespace> namespaces, ControllerOptions options = {},
                  SavedState* saved = nullptr, bool with_memory = true)
      : doorbells(std::move(*Doorbells::create())),
        controller(std::move(options), std::move(namespaces), saved != nullptr ? saved->now : state,
                   *doorbells, dma, interrupts, saved) {
    if (with_memory) dma.add(kRam, kRamSize);
    if (saved != nullptr) controller.reset();
  }

  u32 read32(u64 offset) {
    u32 value;
    controller.read_bar(offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  void write32(u64 offset, u32 value) {
    controller.write_bar(offset, std::as_bytes(std::span(&value, 1)));
  }
  void write64(u64 offset, u64 value) {
    controller.write_bar(offset, std::as_bytes(std::span(&value, 1)));
  }

  // Registers as a driver sets them; admin queues of `entries`.
  void enable(u32 entries = 32) {
    write32(reg::aqa, (entries - 1) << 16 | (entries - 1));
    write64(reg::asq, queue_at(0, false));
    write64(reg::acq, queue_at(0, true));
    write32(reg::cc, 6u << 16 | 4u << 20 | 1);
    queues_.clear();
    queues_[0] = {entries, 0, 0, 1};
    std::memset(dma.memory(queue_at(0, true), entries * 16).data(), 0, entries * 16);
  }
  void disable() { write32(reg::cc, 6u << 16 | 4u << 20); }

  static u64 queue_at(u16 id, bool completion) {
    return kQueuesAt + 0x2'0000u * id + (completion ? 0x1'0000u : 0);
  }

  // One pair of I/O queues; both with `entries`.
  Status create_pair(u16 id, u32 entries, u16 vector = 1) {
    Command cq = admin(AdminOpcode::create_io_cq);
    cq.pointer1 = queue_at(id, true);
    cq.dw10 = (entries - 1) << 16 | id;
    cq.dw11 = u32{vector} << 16 | 3;
    std::memset(dma.memory(cq.pointer1, entries * 16).data(), 0, entries * 16);
    if (const Answer a = run(0, cq); a.status != Status::success) return a.status;
    Command sq = admin(AdminOpcode::create_io_sq);
    sq.pointer1 = queue_at(id, false);
    sq.dw10 = (entries - 1) << 16 | id;
    sq.dw11 = u32{id} << 16 | 1;
    const Answer a = run(0, sq);
    if (a.status == Status::success) queues_[id] = {entries, 0, 0, 1};
    return a.status;
  }

  static Command admin(AdminOpcode opcode) {
    Command command{};
    command.opcode = static_cast<u8>(opcode);
    return command;
  }
  static Command io(IoOpcode opcode, u32 nsid, u64 start, u32 blocks) {
    Command command{};
    command.opcode = static_cast<u8>(opcode);
    command.nsid = nsid;
    command.dw10 = static_cast<u32>(start);
    command.dw11 = static_cast<u32>(start >> 32);
    command.dw12 = (blocks - 1) & 0xffff;
    command.pointer1 = kDataAt;
    command.pointer2 = kDataAt + 4096;
    return command;
  }

  // Puts a command into a queue; the doorbell is rung by ring().
  u16 push(u16 queue, Command command) {
    Queue& q = queues_[queue];
    command.id = next_id_++;
    std::memcpy(dma.memory(queue_at(queue, false) + 64u * q.tail, 64).data(), &command, 64);
    q.tail = (q.tail + 1) % q.entries;
    return command.id;
  }
  void ring(u16 queue) { write32(reg::doorbells + 8u * queue, queues_[queue].tail); }

  // Takes completions that are there; hands room back to the controller if `acknowledge`.
  std::vector<Completion> poll(u16 queue, bool acknowledge = true) {
    std::vector<Completion> all;
    Queue& q = queues_[queue];
    while (true) {
      Completion entry;
      std::memcpy(&entry, dma.memory(queue_at(queue, true) + 16u * q.head, 16).data(), 16);
      if ((entry.status & 1) != q.phase) break;
      q.head = (q.head + 1) % q.entries;
      if (q.head == 0) q.phase ^= 1;
      all.push_back(entry);
      if (acknowledge) write32(reg::doorbells + 8u * queue + 4, q.head);
    }
    return all;
  }

  void turn_until_quiet() {
    for (int i = 0; i < 100000; ++i) {
      if (!controller.turn() && !controller.io_in_flight()) return;
    }
  }

  // Runs one command to its completion.
  Answer run(u16 queue, const Command& command) {
    const u16 id = push(queue, command);
    ring(queue);
    turn_until_quiet();
    for (const Completion& entry : poll(queue)) {
      if (entry.command_id == id) return answer(entry);
    }
    return {static_cast<Status>(0xffff), 0, false};  // none came
  }
  static Answer answer(const Completion& entry) {
    return {static_cast<Status>(entry.status >> 1 & 0x7ff), entry.dw0, (entry.status >> 15) != 0};
  }

  std::span<std::byte> data(u64 size = 4096, u64 offset = 0) {
    return dma.memory(kDataAt + offset, size);
  }

  FakeDma dma;
  FakeInterrupts interrupts;
  ControllerState state;
  std::unique_ptr<Doorbells> doorbells;
  Controller controller;

 private:
  struct Queue {
    u32 entries = 0, tail = 0, head = 0;
    u16 phase = 1;
  };
  std::map<u16, Queue> queues_;
  u16 next_id_ = 1;
};

inline Namespace memory_namespace(u64 size, u32 shift = 9, u32 nsid = 1) {
  Namespace ns;
  ns.backend = std::move(*MemoryBackend::create(size));
  ns.block_shift = shift;
  ns.names = NamespaceNames::derive("TEST", nsid);
  return ns;
}

inline std::vector<Namespace> one(Namespace ns) {
  std::vector<Namespace> all;
  all.push_back(std::move(ns));
  return all;
}

}  // namespace outboard::nvme::test
