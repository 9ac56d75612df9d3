// The doorbell buffer (NVMe 1.4 §5.7 Doorbell Buffer Config, Annex B.5): two pages of guest memory.
// In the first the guest keeps what it would have written to the doorbells of its I/O queues; in
// the second the controller says after which value of each it wants to be told (EventIdx). The
// guest writes a doorbell register only when its new value passes the EventIdx; a value it does not
// pass costs it a store and a load.
//
// Owned and used by the controller's thread; the other side of the memory is the guest's vCPUs.
#pragma once

#include <atomic>
#include <cstddef>
#include <span>

#include "tools/nvme/guest.h"
#include "tools/nvme/state.h"

namespace outboard::nvme {

class ShadowDoorbells {
 public:
  ShadowDoorbells(ControllerState& state, GuestDma& dma) : state_(state.shadow), dma_(dma) {}

  // Takes two pages into use. False: they are not in memory that is mapped here, and nothing has
  // changed.
  bool configure(u64 doorbells, u64 events, u64 bytes);
  void drop() {
    state_ = {};
    forget_host_memory();
  }
  bool configured() const { return state_.bytes != 0; }

  // Whether the memory is there; to be asked before the members below are used, and again after
  // forget_host_memory(). False: the windows have gone from under a configured buffer.
  bool reachable();
  void forget_host_memory() { values_ = events_ = {}; }

  // `index` as in the doorbell page: 2 * queue for a submission tail, one more for a completion
  // head.
  u32 load(u32 index) const {
    // Pairs with the guest's store, and comes after the store in arm(): see there.
    return at(values_, index).load(std::memory_order_seq_cst);
  }
  // A new queue of `entries`.
  void start(u32 index, u32 entries) {
    at(values_, index).store(0, std::memory_order_release);
    disarm(index, 0, entries);
  }
  // The queue had a value before there was a buffer: the guest may have begun to keep it there.
  void adopt(u32 index, u32 value) {
    u32 untouched = 0;
    at(values_, index).compare_exchange_strong(untouched, value);
  }

  // The guest shall ring when it moves on from `value`.
  //
  // The guest stores its value, then loads the EventIdx; we store the EventIdx, then load the value
  // again. Each must see the other's store or have its own seen, or a command would lie in a queue
  // that nobody looks at and whose guest was told not to ring. Acquire and release do not give
  // that: a store may still sit in its CPU's store buffer while the load behind it is done. So a
  // full fence must stand between our store and our load, as one stands between the guest's: both
  // are sequentially consistent, which on x86-64 makes this store an xchg.
  void arm(u32 index, u32 value) { at(events_, index).store(value, std::memory_order_seq_cst); }
  // The guest shall not ring: EventIdx on the far side of a ring of `entries`, seen from `value`.
  // Ahead of it is room for what the guest adds before the next look; behind it for a guest that
  // has stored `value` but not yet loaded the EventIdx: just behind `value` that one would ring.
  // Nothing hangs on when the guest sees this.
  void disarm(u32 index, u32 value, u32 entries) {
    at(events_, index).store((value + entries / 2) % entries, std::memory_order_relaxed);
  }

 private:
  static std::atomic_ref<u32> at(std::span<std::byte> page, u32 index) {
    return std::atomic_ref<u32>(*reinterpret_cast<u32*>(page.data() + index * sizeof(u32)));
  }

  ShadowState& state_;
  GuestDma& dma_;
  std::span<std::byte> values_;  // host memory of both pages; empty: to be looked up
  std::span<std::byte> events_;
};

}  // namespace outboard::nvme
