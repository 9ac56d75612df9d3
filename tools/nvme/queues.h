// The submission and completion queues: rings in guest memory, and the order in which they move.
// Knows nothing of what a command means.
#pragma once

#include <bitset>
#include <deque>
#include <memory>
#include <vector>

#include "tools/nvme/doorbells.h"
#include "tools/nvme/guest.h"
#include "tools/nvme/journal.h"
#include "tools/nvme/request.h"
#include "tools/nvme/shadow_doorbells.h"
#include "tools/nvme/state.h"

namespace outboard::nvme {

class Queues {
 public:
  // What looking at a queue's doorbells brought.
  enum class Look { quiet, work, invalid_value };
  enum class Fetched { none, command, unreachable };

  Queues(ControllerState& state, Doorbells& doorbells, GuestDma& dma, Journal& journal);

  // Takes up the queues that a predecessor left in the state, and its commands in flight.
  void take_over();
  // A command in flight whose entry is there already.
  void forget(const Request& request) {
    Sq& sq = sqs_[request.sq];
    sq.ids->reset(request.command.id);
    --sq.outstanding;
  }
  // The record's completion entry was begun. True: it is in guest memory, and counted now.
  bool entry_is_there(const InFlight& record);

  // A queue's memory must be contiguous; `entries` at least 2. Both clear the doorbell.
  void create_cq(u16 id, u64 base, u32 entries, u16 vector, bool interrupts);
  void create_sq(u16 id, u16 cq, u64 base, u32 entries);
  void delete_cq(u16 id);
  void delete_sq(u16 id);
  void clear();  // all of them, admin too, and the doorbell buffer

  const SqState& sq(u16 id) const { return state_.sq[id]; }
  const CqState& cq(u16 id) const { return state_.cq[id]; }
  bool cq_has_sqs(u16 id) const;
  bool any_io_queue() const;
  void start_deleting(u16 sq) { state_.sq[sq].deleting = 1; }
  u32 outstanding(u16 sq) const { return sqs_[sq].outstanding; }
  const std::vector<u16>& live_sqs() const { return live_sqs_; }

  // Reads the doorbells. look_at_cq() also writes completions that waited for room.
  Look look_at_sq(u16 id);
  Look look_at_cq(u16 id);

  // §5.7: I/O queues' doorbells are read from the guest's buffer from now on, if it can be reached.
  bool use_shadow(u64 doorbells, u64 events, u64 bytes);
  bool shadowed() const { return shadow_.configured(); }
  // Before the thread sleeps: the guest is asked to ring for every shadowed queue, and each is
  // looked at once more after that. False: something had come in between, so do not sleep.
  bool arm_shadow();

  // May a command be fetched: there is one, and its completion queue is not behind.
  bool ready(u16 sq) const;
  // Copies the next command and counts it as outstanding. `conflict`: its id already is.
  Fetched fetch(u16 sq, Request& request, bool& conflict);

  // Writes the completion of a fetched command, or keeps it until there is room; appends requests
  // whose entry is written to `posted`. False: the queue's memory is unreachable.
  bool post(Request& request);
  std::vector<Request*>& posted() { return posted_; }
  // Requests whose completion waits for room; forgotten by this call.
  std::vector<Request*> take_waiting();

  // Completion queues with new entries since the last call, once each, for interrupts.
  std::vector<u16> take_rung();
  bool cq_has_unread(u16 id) const { return state_.cq[id].head != cqs_[id].tail; }
  u16 highest_cq() const { return highest_cq_; }

  // A completion could not be written while room was looked for; stays until clear().
  bool unreachable() const { return unreachable_; }

  // Forgets host addresses: the guest's windows have changed or are about to.
  void forget_host_memory();

 private:
  struct Sq {
    std::byte* host = nullptr;
    u32 head = 0;
    u32 tail = 0;        // as last read and found valid
    u32 rejected = ~0u;  // an invalid value already reported
    u32 outstanding = 0;
    std::unique_ptr<std::bitset<65536>> ids;
  };
  struct Cq {
    std::byte* host = nullptr;
    u32 tail = 0;
    bool phase = true;
    u32 rejected = ~0u;
    bool rung = false;
    std::deque<Request*> waiting;
  };

  u32 sq_value(u16 id);
  u32 cq_value(u16 id);
  bool in_shadow(u16 id);

  bool full(u16 cq) const {
    const CqState& state = state_.cq[cq];
    return (cqs_[cq].tail + 1u) % state.entries == state.head;
  }
  std::byte* entry_memory(u16 cq_id);
  void count_entry(u16 cq_id);
  bool write_entry(Request& request, u16 cq_id);
  bool flush_waiting(u16 cq_id);
  void list_sqs();

  ControllerState& state_;
  Doorbells& doorbells_;
  GuestDma& dma_;
  Journal& journal_;
  ShadowDoorbells shadow_;
  std::array<Sq, kMaxQueues> sqs_;
  std::array<Cq, kMaxQueues> cqs_;
  std::vector<u16> live_sqs_;
  std::vector<u16> rung_;
  std::vector<Request*> posted_;
  u16 highest_cq_ = 0;
  bool unreachable_ = false;
};

// The status field of a completion entry, phase clear.
constexpr u16 status_field(Status status) {
  const bool final = status != Status::success && !may_retry(status);
  return static_cast<u16>(static_cast<u16>(status) << 1 | (final ? 1u << 15 : 0));
}

}  // namespace outboard::nvme
