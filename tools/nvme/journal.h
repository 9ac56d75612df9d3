// The records of the commands in flight (saved_state.h), and the order of stores that makes a kill
// at any instruction harmless:
//
//   fetch     record whole, step = fetched, SqState::fetched + 1
//             killed before the last: the record's `order` is the count, so the count is behind
//   effect    `before` = `now`, undo; the admin command changes `now`; step = answered
//             killed before the last: `now` = `before`, and the command runs again
//   answer    status, dw0, step = answered: from here it does not run again
//   post      place, step = posting, entry in guest memory (its phase last), CqState::posted + 1,
//             step = free
//             killed before the count: the phase bit in guest memory says whether the entry is
//             there killed after it: `place` is below the count, so the command is done
//
// Controller's thread only. Without a state file nothing is kept and each call is one branch.
#pragma once

#include <vector>

#include "tools/nvme/fail_point.h"
#include "tools/nvme/saved_state.h"

namespace outboard::nvme {

class Journal {
 public:
  // `saved` null: keep nothing.
  explicit Journal(SavedState* saved) : saved_(saved) {}

  bool keeps() const { return saved_ != nullptr; }
  InFlight& record(u32 slot) { return saved_->in_flight[slot]; }

  void fetched(u32 slot, const Command& command, u16 sq, u64 order) {
    if (saved_ == nullptr) return;
    InFlight& record = saved_->in_flight[slot];
    record.command = command;
    record.order = order;
    record.sequence = next_++;
    record.sq = sq;
    keep_order();
    record.step = InFlight::fetched;
    keep_order();
  }

  // An admin command is about to change the controller's state.
  void begin_effect(u32 slot) {
    if (saved_ == nullptr) return;
    saved_->undo = 0;
    keep_order();
    saved_->before = saved_->now;
    keep_order();
    saved_->undo = slot + 1;
    keep_order();
    fail_point(FailPoint::effect_begin);
  }
  // It has not, after all, or its completion comes later.
  void end_effect() {
    if (saved_ == nullptr) return;
    keep_order();
    saved_->undo = 0;
    keep_order();
  }

  void answered(u32 slot, u16 status, u32 dw0) {
    if (saved_ == nullptr) return;
    InFlight& record = saved_->in_flight[slot];
    record.status = status;
    record.dw0 = dw0;
    keep_order();
    if (saved_->undo == slot + 1) fail_point(FailPoint::effect_end);
    record.step = InFlight::answered;
    keep_order();
    if (saved_->undo == slot + 1) end_effect();
  }
  void posting(u32 slot, u64 place) {
    if (saved_ == nullptr) return;
    InFlight& record = saved_->in_flight[slot];
    record.place = place;
    keep_order();
    record.step = InFlight::posting;
    keep_order();
  }
  void done(u32 slot) {
    if (saved_ == nullptr) return;
    keep_order();
    saved_->in_flight[slot].step = InFlight::free;
    keep_order();
  }

  // A reset: no command is in flight.
  void clear();

  // A format has changed a namespace's block size.
  void block_shift(u32 index, u32 shift) {
    if (saved_ != nullptr) saved_->block_shift[index] = static_cast<u8>(shift);
  }

  u32 block_shift(u32 index) const { return saved_ != nullptr ? saved_->block_shift[index] : 0; }

  // Of a predecessor's state: undoes the effect of an admin command that was not answered, and
  // counts fetches whose count was not stored.
  void take_over();
  // Slots that are not free, in the order of fetching.
  std::vector<u32> in_order() const;

 private:
  SavedState* saved_;
  u64 next_ = 0;  // sequence
};

}  // namespace outboard::nvme
