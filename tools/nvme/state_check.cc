#include "tools/nvme/state_check.h"

#include <algorithm>
#include <bitset>

namespace outboard::nvme {
namespace {

using Damage = std::optional<std::string>;

constexpr u64 kPage = 4096;
// Counts of commands; more is no count (and would wrap).
constexpr u64 kMostCommands = u64{1} << 62;

Damage queue(const char* kind, u32 id, const char* what) {
  return std::string(kind) + " queue " + std::to_string(id) + ": " + what;
}

template <class Queue>
bool flags_good(const Queue& queue, u8 other) {
  return queue.live <= 1 && other <= 1;
}

bool ring_good(u32 id, u64 base, u32 entries) {
  const u32 most = id == 0 ? 4096 : kMaxQueueEntries;
  return base % kPage == 0 && entries >= 2 && entries <= most;
}

Damage queues(const ControllerState& state, u16 io_queues, u16 vectors) {
  for (u32 id = 0; id < kMaxQueues; ++id) {
    const CqState& cq = state.cq[id];
    if (!flags_good(cq, cq.interrupts)) return queue("completion", id, "flags");
    if (cq.live != 0) {
      if (id > io_queues) return queue("completion", id, "too many");
      if (!ring_good(id, cq.base, cq.entries)) return queue("completion", id, "place or size");
      if (cq.head >= cq.entries || cq.posted > kMostCommands) {
        return queue("completion", id, "head or tail");
      }
      if (cq.vector >= vectors) return queue("completion", id, "vector");
    }
    const SqState& sq = state.sq[id];
    if (!flags_good(sq, sq.deleting)) return queue("submission", id, "flags");
    if (sq.live == 0) continue;
    if (id > io_queues) return queue("submission", id, "too many");
    if (!ring_good(id, sq.base, sq.entries)) return queue("submission", id, "place or size");
    if (sq.fetched > kMostCommands) return queue("submission", id, "head");
    if (sq.cq > io_queues || state.cq[sq.cq].live == 0 || (id == 0) != (sq.cq == 0)) {
      return queue("submission", id, "its completion queue");
    }
  }
  return {};
}

Damage features(const FeatureValues& values, u16 io_queues) {
  const bool flags = values.write_cache <= 1 && values.timestamp_by_host <= 1 &&
                     std::all_of(values.coalescing_off.begin(), values.coalescing_off.end(),
                                 [](u8 flag) { return flag <= 1; });
  if (!flags || values.io_queues < 1 || values.io_queues > io_queues) return "features";
  return {};
}

Damage controller(const ControllerState& state, u16 io_queues, u16 vectors) {
  const Registers& r = state.registers;
  if ((r.cc >> 7 & 0xf) > 4 && (r.csts & kCstsReady) != 0) return "page size";
  if (auto wrong = features(state.features, io_queues)) return wrong;
  const ShadowState& shadow = state.shadow;
  if (shadow.bytes != 0 &&
      (shadow.bytes < kPage || shadow.bytes > 16 * kPage || shadow.bytes % kPage != 0 ||
       (shadow.doorbells | shadow.events) % kPage != 0)) {
    return "doorbell buffer";
  }
  return queues(state, io_queues, vectors);
}

// Those of a controller that is not enabled are dropped unread.
Damage in_flight(const SavedState& saved, const ControllerState& state) {
  std::bitset<kMaxQueues> behind;   // a fetch that is not counted: one a submission queue
  std::bitset<kMaxQueues> writing;  // an entry that is not counted: one a completion queue
  for (const InFlight& record : saved.in_flight) {
    if (record.step == InFlight::free) continue;
    if (record.step > InFlight::posting) return "a command's step";
    if (record.sq >= kMaxQueues || state.sq[record.sq].live == 0) return "a command's queue";
    const SqState& sq = state.sq[record.sq];
    if (record.order > sq.fetched || record.sequence > kMostCommands) return "a command's order";
    if (record.order == sq.fetched) {
      if (behind[record.sq] || record.step != InFlight::fetched) return "a command's order";
      behind.set(record.sq);
    }
    if (record.step != InFlight::posting) continue;
    if (record.place > state.cq[sq.cq].posted) return "a completion's place";
    if (record.place == state.cq[sq.cq].posted) {
      if (writing[sq.cq]) return "a completion's place";
      writing.set(sq.cq);
    }
  }
  return {};
}

}  // namespace

Damage damage(const SavedState& saved, u32 namespaces, u16 io_queues, u16 vectors) {
  if (saved.undo > kMaxInFlight) return "the command that was changing it";
  const bool torn = saved.undo != 0 && saved.in_flight[saved.undo - 1].step == InFlight::fetched;
  const ControllerState& state = torn ? saved.before : saved.now;
  const Registers& r = state.registers;
  if (auto wrong = features(state.features, io_queues)) return wrong;
  for (u32 i = 0; i < kMaxNamespaces; ++i) {
    const u8 shift = saved.block_shift[i];
    if (shift != 0 && (i >= namespaces || (shift != 9 && shift != 12))) return "block size";
  }
  for (const SavedWindow& window : saved.windows) {
    if (window.live > 1 || window.address + window.size < window.address) return "memory windows";
  }
  // A reset or an enabling may have been cut short: then the queues count for nothing.
  const bool runs = (r.cc & kCcEnable) != 0 && (r.csts & kCstsReady) != 0 &&
                    state.sq[0].live != 0 && state.cq[0].live != 0;
  if (!runs) return {};
  if (auto wrong = controller(state, io_queues, vectors)) return wrong;
  return in_flight(saved, state);
}

}  // namespace outboard::nvme
