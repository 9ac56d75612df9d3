#include "vfio_user/pending.h"

#include <algorithm>
#include <utility>

#include "vfio_user/connection.h"

namespace outboard::vfio_user {

namespace {

bool brings_fds(wire::Command command) {
  return command == wire::Command::version || command == wire::Command::device_get_region_info ||
         command == wire::Command::device_get_region_io_fds;
}

}  // namespace

PendingCall::~PendingCall() {
  if (connection_ != nullptr) connection_->give_up(*this);
}

bool PendingTable::taken(std::uint16_t id) const {
  return std::any_of(calls_.begin(), calls_.end(), [&](const auto* c) { return c->id_ == id; }) ||
         std::any_of(tombstones_.begin(), tombstones_.end(),
                     [&](const auto& t) { return t.id == id; });
}

bool PendingTable::allocate(std::uint16_t& id) {
  for (int tries = 0; tries <= 0xffff; ++tries) {
    id = next_id_++;
    if (!taken(id)) return true;
  }
  return false;
}

void PendingTable::add(PendingCall& call) {
  calls_.push_back(&call);
  if (brings_fds(call.command_)) with_fds_.fetch_add(1, std::memory_order_relaxed);
}

void PendingTable::left(const PendingCall& call) {
  if (brings_fds(call.command_)) with_fds_.fetch_sub(1, std::memory_order_relaxed);
}

PendingTable::Match PendingTable::take(std::uint16_t id, wire::Command command) {
  const auto call =
      std::find_if(calls_.begin(), calls_.end(), [&](const auto* c) { return c->id_ == id; });
  if (call != calls_.end()) {
    if ((*call)->command_ != command) return {Match::Kind::wrong_command, nullptr};
    PendingCall* const found = *call;
    calls_.erase(call);
    left(*found);
    return {Match::Kind::call, found};
  }
  const auto tombstone = std::find_if(tombstones_.begin(), tombstones_.end(),
                                      [&](const auto& t) { return t.id == id; });
  if (tombstone == tombstones_.end()) return {};
  if (tombstone->command != command) return {Match::Kind::wrong_command, nullptr};
  tombstones_.erase(tombstone);
  return {Match::Kind::late, nullptr};
}

bool PendingTable::entomb(const PendingCall& call) {
  if (std::erase(calls_, &call) > 0) left(call);
  tombstones_.push_back({call.id_, call.command_});
  return tombstones_.size() <= kMaxTombstones;
}

std::vector<PendingCall*> PendingTable::take_all() {
  with_fds_.store(0, std::memory_order_relaxed);
  return std::exchange(calls_, {});
}

PendingCall* PendingTable::sleeper() const {
  const auto found =
      std::find_if(calls_.begin(), calls_.end(), [](const auto* c) { return c->sleeping_; });
  return found == calls_.end() ? nullptr : *found;
}

}  // namespace outboard::vfio_user
