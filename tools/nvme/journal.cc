#include "tools/nvme/journal.h"

#include <algorithm>

namespace outboard::nvme {

void Journal::clear() {
  if (saved_ == nullptr) return;
  for (InFlight& record : saved_->in_flight) {
    if (record.step != InFlight::free) record.step = InFlight::free;
  }
  end_effect();
}

void Journal::take_over() {
  if (saved_ == nullptr) return;
  if (const u32 undo = saved_->undo; undo != 0) {
    // Killed in here, the next successor does the same again: `undo` goes last.
    if (saved_->in_flight[undo - 1].step == InFlight::fetched) saved_->now = saved_->before;
    end_effect();
  }
  for (const InFlight& record : saved_->in_flight) {
    if (record.step == InFlight::free) continue;
    next_ = std::max(next_, record.sequence + 1);
    SqState& sq = saved_->now.sq[record.sq];
    if (record.order == sq.fetched) ++sq.fetched;
  }
}

std::vector<u32> Journal::in_order() const {
  std::vector<u32> slots;
  if (saved_ == nullptr) return slots;
  const auto& all = saved_->in_flight;
  for (u32 slot = 0; slot < kMaxInFlight; ++slot) {
    if (all[slot].step != InFlight::free) slots.push_back(slot);
  }
  std::sort(slots.begin(), slots.end(),
            [&](u32 a, u32 b) { return all[a].sequence < all[b].sequence; });
  return slots;
}

}  // namespace outboard::nvme
