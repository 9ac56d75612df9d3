#include "tools/nvme/controller.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace outboard::nvme {
namespace {

u32 index_of(const std::vector<Namespace>& all, const Namespace& ns) {
  return static_cast<u32>(&ns - all.data());
}

}  // namespace

Controller::Controller(ControllerOptions options, std::vector<Namespace> namespaces,
                       ControllerState& state, Doorbells& doorbells, GuestDma& dma,
                       Interrupts& interrupts, SavedState* saved)
    : core_(std::move(options.identity), std::move(namespaces), options.io_queues,
            static_cast<u16>(options.io_queues + 1), state, doorbells, dma, interrupts, saved),
      admin_(core_, *this),
      io_(core_, *this),
      format_(core_, *this),
      submitted_(core_.namespaces.size()),
      in_backend_(core_.namespaces.size()) {
  if (saved == nullptr) core_.features.reset();
}

void Controller::reset() {
  const bool enabled = (core_.state.registers.cc & kCcEnable) != 0;
  core_.state.registers.cc = 0;
  keep_order();
  ++core_.counters.device_resets;
  if (enabled || active()) begin_disable();
  drain();
  core_.state.registers = Registers{};
  core_.features.reset();
  core_.logs.reset();
  core_.journal.clear();
  core_.queues.clear();
  suspended_ = false;
  core_.queues.forget_host_memory();
  core_.interrupts.set_pin(false);
}

void Controller::before_window_change() {
  drain();
  core_.queues.forget_host_memory();
}

bool Controller::flush_all() {
  drain();
  bool good = true;
  Request flush;
  for (Namespace& ns : core_.namespaces) {
    flush.kind = BackendRequest::Kind::flush;
    flush.error = 0;
    ns.backend->submit(flush);
    ns.backend->kick();
    done_.clear();
    while (done_.empty()) {
      ns.backend->wait();
      ns.backend->reap(done_);
    }
    done_.clear();
    good = good && flush.error == 0;
  }
  return good;
}

bool Controller::turn() {
  bool busy = false;
  if (suspended_) return false;
  if (active() && !fatal_state() && !discarding_) {
    ++core_.counters.doorbell_polls;
    busy |= look_at_doorbells();
    busy |= fetch();
  }
  kick();
  busy |= reap();
  settle();
  busy |= kick();  // what settle() began
  return busy;
}

bool Controller::kick() {
  bool any = false;
  for (u32 i = 0; i < submitted_.size(); ++i) {
    if (!submitted_[i]) continue;
    submitted_[i] = false;
    core_.namespaces[i].backend->kick();
    fail_point(FailPoint::submitted);
    any = true;
  }
  return any;
}

bool Controller::look_at_doorbells() {
  bool work = false;
  const auto judge = [&](Queues::Look look) {
    if (look == Queues::Look::work) work = true;
    if (look == Queues::Look::invalid_value) {
      core_.events.notify(EventType::error, kEventInvalidDoorbellValue, LogId::error);
      work = true;
    }
  };
  for (u16 id = 0; id <= core_.queues.highest_cq(); ++id) {
    if (core_.queues.cq(id).live != 0) judge(core_.queues.look_at_cq(id));
  }
  for (const u16 id : core_.queues.live_sqs()) {
    const auto look = core_.queues.look_at_sq(id);
    if (look == Queues::Look::work && id != 0) core_.io_clock.doorbell();
    judge(look);
  }
  if (work && !core_.interrupts.message_signalled()) core_.interrupts.set_pin(pin_level());
  return work;
}

bool Controller::fetch() {
  bool any = false;
  turn_bytes_ = 0;
  // Round robin (§4.13.1); a copy, since a command may create or delete queues.
  const std::vector<u16> order = core_.queues.live_sqs();
  const u32 burst = std::min(kFetchesPerTurn, 1u << (core_.state.features.arbitration & 7));
  ++next_sq_;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const u16 id = order[(next_sq_ + i) % order.size()];
    for (u32 n = 0;
         n < burst && turn_bytes_ < kBytesPerTurn && core_.queues.ready(id) && !fatal_state();
         ++n) {
      const std::size_t reserve = id == 0 ? 0 : kAdminReserve;
      if (free_.size() + kRequests - requests_.size() <= reserve) break;
      if (free_.empty()) free_.push_back(&add_request());
      Request& request = *free_.back();
      bool conflict = false;
      const auto fetched = core_.queues.fetch(id, request, conflict);
      if (fetched == Queues::Fetched::unreachable) fatal();
      if (fetched != Queues::Fetched::command) break;
      any = true;
      if (id != 0) core_.io_clock.fetched();
      free_.pop_back();
      prepare(request, id);
      if (conflict) {
        finish(request, Status::command_id_conflict, 0);
      } else {
        execute(request);
      }
    }
  }
  return any;
}

Request& Controller::add_request() {
  requests_.push_back(std::make_unique<Request>());
  requests_.back()->slot = static_cast<u32>(requests_.size() - 1);
  return *requests_.back();
}

void Controller::prepare(Request& request, u16 sq) {
  request.sq = sq;
  request.ns = nullptr;
  request.status = Status::success;
  request.dw0 = 0;
  request.may_discard = false;
  request.durable = false;
  request.length = 0;
}

void Controller::execute(Request& request) {
  if (request.sq != 0) {
    io_.execute(request);
  } else if (static_cast<AdminOpcode>(request.command.opcode) == AdminOpcode::format_nvm) {
    format_.execute(request);
  } else {
    admin_.execute(request);
  }
}

void Controller::start(Request& request, Namespace& ns) {
  request.error = 0;
  const bool copies =
      request.kind == BackendRequest::Kind::read || request.kind == BackendRequest::Kind::write;
  if (copies) turn_bytes_ += request.length;
  const u32 index = index_of(core_.namespaces, ns);
  ++in_backend_[index];
  ++backend_requests_;
  submitted_[index] = true;
  fail_point(FailPoint::submit);
  ns.backend->submit(request);
}

bool Controller::reap() {
  if (backend_requests_ == 0) return false;
  bool any = false;
  for (u32 i = 0; i < in_backend_.size(); ++i) {
    if (in_backend_[i] == 0) continue;
    done_.clear();
    core_.namespaces[i].backend->reap(done_);
    in_backend_[i] -= static_cast<u32>(done_.size());
    backend_requests_ -= static_cast<u32>(done_.size());
    any = any || !done_.empty();
    for (BackendRequest* done : done_) advance(static_cast<Request&>(*done));
  }
  done_.clear();
  kick();
  return any;
}

void Controller::advance(Request& request) {
  fail_point(FailPoint::complete);
  if (&request == &shutdown_flush_) {
    shutdown_flushing_ = false;
  } else if (discarding_) {
    release(request);
  } else if (request.sq != 0) {
    io_.advance(request);
  } else if (draining_) {
    paused_format_ = &request;  // its next step would make the caller wait for the whole erasure
  } else {
    format_.advance(request);
  }
}

// What becomes possible once commands have finished.
void Controller::settle() {
  if (suspended_) return;
  if (discarding_) {
    if (backend_requests_ == 0) end_disable();
    return;
  }
  if (!active()) return;
  if (!fatal_state()) {
    if (paused_format_ != nullptr) format_.advance(*std::exchange(paused_format_, nullptr));
    format_.settle();
    admin_.settle();
  }
  if (shutting_down_ && !shutdown_flushing_) {
    if (shutdown_next_ < core_.namespaces.size()) {
      if (backend_requests_ == 0) {
        shutdown_flushing_ = true;
        shutdown_flush_.kind = BackendRequest::Kind::flush;
        start(shutdown_flush_, core_.namespaces[shutdown_next_++]);
      }
    } else {
      Registers& r = core_.state.registers;
      shutting_down_ = false;
      ++core_.counters.shutdowns;
      r.csts = (r.csts & ~kCstsShutdownMask) | kCstsShutdownComplete;
    }
  }
  if (core_.queues.unreachable()) fatal();
  release_posted();
  signal();
}

void Controller::finish(Request& request, Status status, u32 dw0) {
  if (discarding_) {
    release(request);
    return;
  }
  request.status = status;
  request.dw0 = dw0;
  core_.journal.answered(request.slot, static_cast<u16>(status), dw0);
  fail_point(FailPoint::answered);
  ++(request.sq == 0 ? core_.counters.admin : core_.counters.io)[request.command.opcode];
  if (status != Status::success && status != Status::abort_requested) {
    ++core_.counters.errors;
    const bool has_lba =
        request.sq != 0 && request.command.opcode != static_cast<u8>(IoOpcode::dataset_management);
    const u64 lba = has_lba ? u64{request.command.dw11} << 32 | request.command.dw10 : 0;
    core_.logs.add_error(request.sq, request.command, status_field(status), lba);
  }
  const bool read = status == Status::success && request.sq != 0 &&
                    request.command.opcode == static_cast<u8>(IoOpcode::read);
  const bool interrupts = read && core_.queues.cq(core_.queues.sq(request.sq).cq).interrupts != 0;
  if (!core_.queues.post(request)) {
    fatal();
    release(request);
  } else if (read) {
    core_.io_clock.read(interrupts);
  }
}

void Controller::release_posted() {
  for (Request* request : core_.queues.posted()) release(*request);
  core_.queues.posted().clear();
}

void Controller::release(Request& request) {
  if (&request == &shutdown_flush_) return;
  if (request.ns != nullptr) {
    --request.ns->in_flight;
    request.ns = nullptr;
  }
  request.bounced = false;
  request.bounce.release();
  free_.push_back(&request);
}

bool Controller::pin_level() const {
  if (!active() || (core_.state.registers.interrupt_mask & 1) != 0) return false;
  for (u16 id = 0; id <= core_.queues.highest_cq(); ++id) {
    if (core_.queues.cq(id).live != 0 && core_.queues.cq(id).interrupts != 0 &&
        core_.queues.cq_has_unread(id)) {
      return true;
    }
  }
  return false;
}

void Controller::signal() {
  const std::vector<u16> rung = core_.queues.take_rung();
  if (rung.empty()) return;
  if (!core_.interrupts.message_signalled()) {
    ++core_.counters.interrupts;
    core_.interrupts.set_pin(pin_level());
    return;
  }
  for (const u16 id : rung) {
    if (core_.queues.cq(id).live == 0 || core_.queues.cq(id).interrupts == 0) continue;
    ++core_.counters.interrupts;
    fail_point(FailPoint::interrupt);
    core_.interrupts.raise(core_.queues.cq(id).vector);
    fail_point(FailPoint::interrupted);
  }
}

void Controller::drain() {
  draining_ = true;
  while (backend_requests_ != 0) {
    for (u32 i = 0; i < in_backend_.size(); ++i) {
      if (in_backend_[i] == 0) continue;
      core_.namespaces[i].backend->kick();
      core_.namespaces[i].backend->wait();
      break;
    }
    reap();
    if (!discarding_) continue;
    if (backend_requests_ == 0) end_disable();
  }
  draining_ = false;
  if (!discarding_) release_posted();
  signal();
}

}  // namespace outboard::nvme
