#include "tools/nvme/queues.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace outboard::nvme {

Queues::Queues(ControllerState& state, Doorbells& doorbells, GuestDma& dma, Journal& journal)
    : state_(state), doorbells_(doorbells), dma_(dma), journal_(journal), shadow_(state, dma) {}

void Queues::take_over() {
  for (u16 id = 0; id < kMaxQueues; ++id) {
    cqs_[id] = Cq{};
    sqs_[id] = Sq{};
    if (CqState& cq = state_.cq[id]; cq.live != 0) {
      cqs_[id].tail = static_cast<u32>(cq.posted % cq.entries);
      cqs_[id].phase = cq.posted / cq.entries % 2 == 0;
      highest_cq_ = std::max(highest_cq_, id);
    }
    if (SqState& sq = state_.sq[id]; sq.live != 0) {
      sq.deleting = 0;  // the command that wants it gone is in flight and will say so again
      sqs_[id].head = sqs_[id].tail = static_cast<u32>(sq.fetched % sq.entries);
      sqs_[id].ids = std::make_unique<std::bitset<65536>>();
    }
  }
  list_sqs();
  for (const u32 slot : journal_.in_order()) {
    const InFlight& record = journal_.record(slot);
    ++sqs_[record.sq].outstanding;
    sqs_[record.sq].ids->set(record.command.id);
  }
}

void Queues::create_cq(u16 id, u64 base, u32 entries, u16 vector, bool interrupts) {
  state_.cq[id] = {
      .base = base, .entries = entries, .vector = vector, .interrupts = interrupts, .live = 1};
  cqs_[id] = Cq{};
  doorbells_.clear_cq(id);
  if (in_shadow(id)) shadow_.start(2u * id + 1, entries);
  highest_cq_ = std::max(highest_cq_, id);
}

void Queues::create_sq(u16 id, u16 cq, u64 base, u32 entries) {
  state_.sq[id] = {.base = base, .entries = entries, .cq = cq, .live = 1};
  auto ids = std::move(sqs_[id].ids);
  if (ids) {
    ids->reset();
  } else {
    ids = std::make_unique<std::bitset<65536>>();
  }
  sqs_[id] = Sq{};
  sqs_[id].ids = std::move(ids);
  doorbells_.clear_sq(id);
  if (in_shadow(id)) shadow_.start(2u * id, entries);
  list_sqs();
}

void Queues::delete_cq(u16 id) {
  state_.cq[id] = CqState{};
  cqs_[id] = Cq{};
}

void Queues::delete_sq(u16 id) {
  state_.sq[id] = SqState{};
  list_sqs();
}

void Queues::clear() {
  for (u16 id = 0; id < kMaxQueues; ++id) {
    state_.sq[id] = SqState{};
    state_.cq[id] = CqState{};
    cqs_[id] = Cq{};
    sqs_[id].outstanding = 0;
  }
  rung_.clear();
  posted_.clear();
  highest_cq_ = 0;
  unreachable_ = false;
  list_sqs();
  doorbells_.clear_all();
  shadow_.drop();
}

void Queues::list_sqs() {
  live_sqs_.clear();
  for (u16 id = 0; id < kMaxQueues; ++id) {
    if (state_.sq[id].live != 0) live_sqs_.push_back(id);
  }
}

bool Queues::cq_has_sqs(u16 id) const {
  return std::any_of(state_.sq.begin(), state_.sq.end(),
                     [&](const SqState& sq) { return sq.live != 0 && sq.cq == id; });
}

bool Queues::any_io_queue() const {
  return std::any_of(state_.cq.begin() + 1, state_.cq.end(),
                     [](const CqState& cq) { return cq.live != 0; });
}

// The admin queue stays with its registers (§5.7).
bool Queues::in_shadow(u16 id) {
  if (id == 0 || !shadow_.configured()) return false;
  if (shadow_.reachable()) return true;
  unreachable_ = true;
  return false;
}

// A buffer that is gone holds no news; the registers say nothing of a queue that has one.
u32 Queues::sq_value(u16 id) {
  if (in_shadow(id)) return shadow_.load(2u * id);
  return id != 0 && shadow_.configured() ? sqs_[id].tail : doorbells_.sq_tail(id);
}

u32 Queues::cq_value(u16 id) {
  if (in_shadow(id)) return shadow_.load(2u * id + 1);
  return id != 0 && shadow_.configured() ? state_.cq[id].head : doorbells_.cq_head(id);
}

bool Queues::use_shadow(u64 doorbells, u64 events, u64 bytes) {
  if (!shadow_.configure(doorbells, events, bytes)) return false;
  for (u16 id = 1; id < kMaxQueues; ++id) {
    if (state_.sq[id].live != 0) {
      shadow_.adopt(2u * id, doorbells_.sq_tail(id));
      shadow_.disarm(2u * id, sqs_[id].tail, state_.sq[id].entries);
    }
    if (state_.cq[id].live != 0) {
      shadow_.adopt(2u * id + 1, doorbells_.cq_head(id));
      shadow_.disarm(2u * id + 1, state_.cq[id].head, state_.cq[id].entries);
    }
  }
  return true;
}

bool Queues::arm_shadow() {
  if (!shadow_.configured()) return true;
  if (unreachable_) return true;
  if (!shadow_.reachable()) {
    unreachable_ = true;  // the next turn says so
    return false;
  }
  for (const u16 id : live_sqs_) {
    if (id != 0) shadow_.arm(2u * id, sqs_[id].tail);
  }
  // The guest's reading of completions matters to nobody but those that wait for room.
  for (u16 id = 1; id <= highest_cq_; ++id) {
    if (!cqs_[id].waiting.empty()) shadow_.arm(2u * id + 1, state_.cq[id].head);
  }
  for (const u16 id : live_sqs_) {
    const u32 value = id == 0 ? sqs_[0].tail : shadow_.load(2u * id);
    if (value != sqs_[id].tail && value != sqs_[id].rejected) return false;
  }
  for (u16 id = 1; id <= highest_cq_; ++id) {
    if (cqs_[id].waiting.empty()) continue;
    const u32 value = shadow_.load(2u * id + 1);
    if (value != state_.cq[id].head && value != cqs_[id].rejected) return false;
  }
  return true;
}

Queues::Look Queues::look_at_sq(u16 id) {
  Sq& sq = sqs_[id];
  const u32 value = sq_value(id);
  if (value >= state_.sq[id].entries) {
    if (value == sq.rejected) return Look::quiet;
    sq.rejected = value;
    return Look::invalid_value;
  }
  if (value == sq.tail) return Look::quiet;
  sq.tail = value;
  sq.rejected = ~0u;
  if (in_shadow(id)) shadow_.disarm(2u * id, value, state_.sq[id].entries);
  return Look::work;
}

Queues::Look Queues::look_at_cq(u16 id) {
  CqState& cq = state_.cq[id];
  const u32 value = cq_value(id);
  if (value == cq.head) return Look::quiet;
  const u32 unread = (cqs_[id].tail + cq.entries - cq.head) % cq.entries;
  if (value >= cq.entries || (value + cq.entries - cq.head) % cq.entries > unread) {
    if (value == cqs_[id].rejected) return Look::quiet;
    cqs_[id].rejected = value;
    return Look::invalid_value;
  }
  cq.head = static_cast<u16>(value);
  cqs_[id].rejected = ~0u;
  if (in_shadow(id)) shadow_.disarm(2u * id + 1, value, cq.entries);
  if (!flush_waiting(id)) unreachable_ = true;
  return Look::work;
}

bool Queues::ready(u16 id) const {
  const SqState& sq = state_.sq[id];
  return sq.live != 0 && sq.deleting == 0 && sqs_[id].head != sqs_[id].tail &&
         cqs_[sq.cq].waiting.empty();
}

Queues::Fetched Queues::fetch(u16 id, Request& request, bool& conflict) {
  SqState& state = state_.sq[id];
  Sq& sq = sqs_[id];
  Command& command = request.command;
  if (sq.head == sq.tail) return Fetched::none;
  if (sq.host == nullptr) {
    const auto host =
        dma_.translate(state.base, u64{state.entries} * sizeof(Command), Access::read);
    if (!host.empty()) sq.host = host.data();
  }
  const u64 offset = u64{sq.head} * sizeof(Command);
  if (sq.host != nullptr) {
    std::memcpy(&command, sq.host + offset, sizeof(command));
  } else if (!dma_.read(state.base + offset, std::as_writable_bytes(std::span(&command, 1)))) {
    return Fetched::unreachable;
  }
  fail_point(FailPoint::fetch);
  journal_.fetched(request.slot, command, id, state.fetched);
  fail_point(FailPoint::fetch_recorded);
  ++state.fetched;
  keep_order();
  fail_point(FailPoint::fetched);
  sq.head = sq.head + 1 == state.entries ? 0 : sq.head + 1;
  conflict = sq.ids->test(command.id);
  sq.ids->set(command.id);
  ++sq.outstanding;
  return Fetched::command;
}

bool Queues::post(Request& request) {
  const u16 cq_id = state_.sq[request.sq].cq;
  Cq& cq = cqs_[cq_id];
  if (!cq.waiting.empty() || full(cq_id)) {
    cq.waiting.push_back(&request);
    return true;
  }
  return write_entry(request, cq_id);
}

bool Queues::write_entry(Request& request, u16 cq_id) {
  CqState& state = state_.cq[cq_id];
  Cq& cq = cqs_[cq_id];
  Sq& sq = sqs_[request.sq];
  Completion entry{};
  entry.dw0 = request.dw0;
  entry.sq_head = static_cast<u16>(sq.head);
  entry.sq_id = request.sq;
  entry.command_id = request.command.id;
  entry.status = static_cast<u16>(status_field(request.status) | (cq.phase ? 1 : 0));

  journal_.posting(request.slot, state.posted);
  fail_point(FailPoint::entry);
  if (std::byte* at = entry_memory(cq_id); at != nullptr) {
    // The dword with the phase goes last: a polling host may look at any moment.
    std::memcpy(at, &entry, 12);
    fail_point(FailPoint::entry_begun);
    u32 last;
    std::memcpy(&last, reinterpret_cast<const std::byte*>(&entry) + 12, sizeof(last));
    std::atomic_ref<u32>(*reinterpret_cast<u32*>(at + 12)).store(last, std::memory_order_release);
  } else if (!dma_.write(state.base + u64{cq.tail} * sizeof(Completion),
                         std::as_bytes(std::span(&entry, 1)))) {
    return false;
  }
  fail_point(FailPoint::entry_written);
  count_entry(cq_id);
  fail_point(FailPoint::entry_counted);
  journal_.done(request.slot);
  fail_point(FailPoint::recorded);
  sq.ids->reset(request.command.id);
  --sq.outstanding;
  posted_.push_back(&request);
  return true;
}

// Host memory of the next entry; null where only messages reach it.
std::byte* Queues::entry_memory(u16 cq_id) {
  const CqState& state = state_.cq[cq_id];
  Cq& cq = cqs_[cq_id];
  if (cq.host == nullptr) {
    const auto host =
        dma_.translate(state.base, u64{state.entries} * sizeof(Completion), Access::write);
    if (host.empty()) return nullptr;
    cq.host = host.data();
  }
  return cq.host + u64{cq.tail} * sizeof(Completion);
}

void Queues::count_entry(u16 cq_id) {
  CqState& state = state_.cq[cq_id];
  Cq& cq = cqs_[cq_id];
  keep_order();
  ++state.posted;
  keep_order();
  if (++cq.tail == state.entries) {
    cq.tail = 0;
    cq.phase = !cq.phase;
  }
  if (!cq.rung) {
    cq.rung = true;
    rung_.push_back(cq_id);
  }
}

bool Queues::entry_is_there(const InFlight& record) {
  const u16 cq_id = state_.sq[record.sq].cq;
  const CqState& state = state_.cq[cq_id];
  if (record.place < state.posted) return true;
  Completion entry{};
  if (const std::byte* at = entry_memory(cq_id); at != nullptr) {
    // The phase first: an entry that has it is whole.
    const u32 last = std::atomic_ref<u32>(*reinterpret_cast<u32*>(const_cast<std::byte*>(at) + 12))
                         .load(std::memory_order_acquire);
    std::memcpy(&entry, at, 12);
    std::memcpy(reinterpret_cast<std::byte*>(&entry) + 12, &last, sizeof(last));
  } else if (!dma_.read(state.base + u64{cqs_[cq_id].tail} * sizeof(Completion),
                        std::as_writable_bytes(std::span(&entry, 1)))) {
    return false;
  }
  const bool there = (entry.status & 1) == (cqs_[cq_id].phase ? 1 : 0) &&
                     entry.command_id == record.command.id && entry.sq_id == record.sq;
  if (there) count_entry(cq_id);
  return there;
}

bool Queues::flush_waiting(u16 cq_id) {
  Cq& cq = cqs_[cq_id];
  while (!cq.waiting.empty() && !full(cq_id)) {
    Request& request = *cq.waiting.front();
    cq.waiting.pop_front();
    if (!write_entry(request, cq_id)) {
      cq.waiting.push_front(&request);
      return false;
    }
  }
  return true;
}

std::vector<Request*> Queues::take_waiting() {
  std::vector<Request*> all;
  for (Cq& cq : cqs_) {
    all.insert(all.end(), cq.waiting.begin(), cq.waiting.end());
    cq.waiting.clear();
  }
  return all;
}

std::vector<u16> Queues::take_rung() {
  for (const u16 id : rung_) cqs_[id].rung = false;
  return std::exchange(rung_, {});
}

void Queues::forget_host_memory() {
  for (Sq& sq : sqs_) sq.host = nullptr;
  for (Cq& cq : cqs_) cq.host = nullptr;
  shadow_.forget_host_memory();
}

}  // namespace outboard::nvme
