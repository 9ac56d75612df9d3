#include "vfio_user/connection.h"

#include <algorithm>
#include <cerrno>
#include <numeric>
#include <string>
#include <utility>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "vfio_user/codec.h"
#include "vfio_user/dma_server.h"
#include "vfio_user/text.h"

namespace outboard::vfio_user {

namespace {

/// Messages between two looks at the deadline, or of one service().
constexpr int kReadBudget = 64;
/// Between two looks of the event loop at a busy connection.
constexpr long kTickNanoseconds = 5'000'000;

}  // namespace

Result<std::unique_ptr<Connection>> Connection::create(std::unique_ptr<Transport> transport,
                                                       DmaServer& dma, Options options) {
  UniqueFd kick(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  UniqueFd tick(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!kick || !epoll || !tick) {
    const int code = errno;
    return fail(Error::Kind::system, code, "cannot make an event descriptor: " + errno_text(code));
  }
  return std::unique_ptr<Connection>(new Connection(
      std::move(transport), dma, options, std::move(kick), std::move(epoll), std::move(tick)));
}

Connection::Connection(std::unique_ptr<Transport> transport, DmaServer& dma, Options options,
                       UniqueFd kick, UniqueFd epoll, UniqueFd tick)
    : transport_(std::move(transport)),
      dma_(dma),
      options_(options),
      kick_(std::move(kick)),
      epoll_(std::move(epoll)),
      tick_(std::move(tick)),
      sender_(*transport_),
      reader_(options.max_message),
      reply_poll_(options.reply_poll) {}

Connection::~Connection() {
  close();
}

// ---- Requests -----------------------------------------------------------------------------------

Result<bool> Connection::submit(PendingCall& call, const Request& request, bool may_wait_turn) {
  std::uint32_t size = sizeof(wire::Header);
  for (const iovec& part : request.body) size += static_cast<std::uint32_t>(part.iov_len);
  {
    std::unique_lock lock(mutex_);
    call.started_ = Clock::now();
    call.deadline_ = call.started_ + request.timeout;
    call.timeout_ = request.timeout;
    while (!dead_ && single_flight() && pending_.in_flight() > 0) {
      if (!may_wait_turn) return false;
      if (turn_.wait_until(lock, call.deadline_) == std::cv_status::timeout &&
          pending_.in_flight() > 0) {
        return fail(Error::Kind::timeout, ETIMEDOUT,
                    "an earlier request kept the connection busy for " +
                        std::to_string(request.timeout.count()) + " ms");
      }
    }
    if (dead_) return tl::make_unexpected(death_);
    if (!pending_.allocate(call.id_)) {
      return fail(Error::Kind::limit, EBUSY, "all message ids are in use");
    }
    call.command_ = request.command;
    call.keep_ = request.keep;
    call.poll_ = request.poll;
    call.done_ = false;
    call.connection_ = this;
    if (pending_.in_flight() == 0) AtomicCounters::count_alone(counters_.dependent_round_trips);
    if (options_.observer != nullptr) {
      call.observed_ = ObservedMessage::request(request.command, call.id_, size, request.body);
    }
    pending_.add(call);
    if (!reading_) sleep_on();  // this thread will read, the event loop need not wake up
  }
  const auto command = static_cast<std::uint16_t>(request.command);
  AtomicCounters::count(counters_.sent, command);

  wire::Header header{call.id_, static_cast<std::uint16_t>(request.command), size,
                      wire::kTypeCommand, 0};
  std::array<iovec, 5> parts{};
  parts[0] = {&header, sizeof header};
  std::copy(request.body.begin(), request.body.end(), parts.begin() + 1);
  const auto sent = sender_.send(std::span(parts).first(1 + request.body.size()), request.fds,
                                 Sender::kRequestBacklog);
  if (sent) {
    AtomicCounters::count(counters_.bytes_out, command, size);
    if (*sent == Sender::Outcome::queued) nudge();
    return true;
  }
  if (sent.error().kind == Error::Kind::closed) {
    die(sent.error());
  } else {  // nothing of it was sent: its id is free again
    const std::lock_guard lock(mutex_);
    if (call.connection_ != nullptr) {
      static_cast<void>(pending_.take(call.id_, call.command_));
      call.connection_ = nullptr;
      turn_.notify_all();
      if (!reading_) hand_on();
    }
  }
  const std::lock_guard lock(mutex_);
  return tl::make_unexpected(dead_ ? death_ : sent.error());
}

Result<Reply> Connection::wait(PendingCall& call) {
  return wait_at_most(call, call.deadline_ - Clock::now());
}

// `left` is the time to the call's deadline, so that a call that was just sent needs no clock.
Result<Reply> Connection::wait_at_most(PendingCall& call, Clock::duration left) {
  std::unique_lock lock(mutex_);
  while (!call.done_) {
    if (left <= Clock::duration::zero()) return tl::make_unexpected(time_out(lock, call));
    if (!reading_) {
      left = read_for(lock, call, left);
    } else {
      call.sleeping_ = true;
      call.arrived_.wait_until(lock, call.deadline_);
      call.sleeping_ = false;
      if (!call.done_) left = call.deadline_ - Clock::now();
    }
  }
  if (!reading_) hand_on();
  return finish(call);
}

Result<Reply> Connection::call(const Request& request) {
  PendingCall call;
  if (auto sent = submit(call, request); !sent) return tl::make_unexpected(sent.error());
  return wait_at_most(call, request.timeout);
}

Result<Reply> Connection::finish(PendingCall& call) {
  if (call.failure_) return tl::make_unexpected(*call.failure_);
  AtomicCounters::count(counters_.round_trips);
  Reply reply = std::move(call.reply_);
  if ((reply.header.flags & wire::kError) != 0) {
    AtomicCounters::count(counters_.errors);
    const int code = error_of(reply.header);
    return fail(Error::Kind::server, code, "the server answered " + errno_text(code));
  }
  return reply;
}

Error Connection::time_out(std::unique_lock<std::mutex>& lock, PendingCall& call) {
  const bool too_many = !pending_.entomb(call);
  call.connection_ = nullptr;
  note_end(call, ObservedMessage::End::timed_out);
  AtomicCounters::count(counters_.timeouts);
  // Requests that were in flight together and time out together are one stall of the server.
  if (call.started_ >= last_timeout_) {
    ++timeouts_in_row_;
    last_timeout_ = Clock::now();
  }
  const std::uint32_t in_row = timeouts_in_row_;
  turn_.notify_all();
  if (!reading_) hand_on();
  lock.unlock();
  Error error{Error::Kind::timeout, ETIMEDOUT,
              "no reply within " + std::to_string(call.timeout_.count()) + " ms"};
  if (too_many) {
    die({Error::Kind::timeout, ETIMEDOUT, "the server left too many requests without a reply"});
  } else if (in_row >= std::max(options_.timeouts_until_dead, 1u)) {
    die({Error::Kind::timeout, ETIMEDOUT,
         "the server let " + std::to_string(in_row) + " deadlines in a row pass"});
  }
  return error;
}

void Connection::give_up(PendingCall& call) {
  bool too_many = false;
  {
    const std::lock_guard lock(mutex_);
    if (call.connection_ == nullptr) return;
    call.connection_ = nullptr;
    note_end(call, ObservedMessage::End::lost);
    too_many = !pending_.entomb(call);
    turn_.notify_all();
    if (!reading_) hand_on();
  }
  if (too_many) broken("too many requests were left without a reply");
}

Result<bool> Connection::post(const wire::WriteMultiEntry& entry, std::size_t multi_payload) {
  if (sender_.queued_bytes() > Sender::kPostedBacklog) return false;
  Sender::Posted write{0, entry, multi_payload};
  const auto began = options_.observer != nullptr ? Clock::now() : Clock::time_point{};
  {
    const std::lock_guard lock(mutex_);
    if (dead_) return tl::make_unexpected(death_);
    if (!pending_.allocate(write.id)) return false;
  }
  const auto sent = sender_.post(write, multi_payload > 0);
  if (!sent) {
    if (sent.error().kind != Error::Kind::closed) return false;
    return tl::make_unexpected(die(sent.error()));
  }
  AtomicCounters::count(counters_.posted);
  if (options_.observer != nullptr) {
    options_.observer->message(ObservedMessage::posted_write(began, write.id, entry));
  }
  if (*sent == Sender::Outcome::queued) nudge();
  return true;
}

void Connection::note_end(PendingCall& call, ObservedMessage::End end,
                          std::uint32_t bytes_in) const {
  if (!call.observed_) return;
  call.observed_->ended = Clock::now();
  call.observed_->end = end;
  call.observed_->bytes_in = bytes_in;
  options_.observer->message(*call.observed_);
  call.observed_.reset();
}

void Connection::set_single_flight() {
  single_flight_.store(true, std::memory_order_relaxed);
}

// ---- The reader role ----------------------------------------------------------------------------

// Returns the time left, meaningless once the call is done.
Connection::Clock::duration Connection::read_for(std::unique_lock<std::mutex>& lock,
                                                 PendingCall& call, Clock::duration left) {
  reading_ = true;
  sleep_on();
  for (bool done = false, first = true; !done; first = false) {
    lock.unlock();
    done = first && call.poll_ && poll_for(call);
    if (!done && wait_readable(left)) done = read_some(&call);
    lock.lock();
    done = done || call.done_;
    if (!done) left = call.deadline_ - Clock::now();
    done = done || left <= Clock::duration::zero();
  }
  reading_ = false;
  return left;
}

// True when the reply has come, or the connection is dead.
bool Connection::poll_for(const PendingCall& call) {
  if (sender_.has_queued() || !reply_poll_.wanted()) return false;
  const auto end = call.started_ + reply_poll_.window();
  do {
    if (!read_some(&call)) continue;
    reply_poll_.succeeded();
    return true;
  } while (Clock::now() < end);
  reply_poll_.failed();
  return false;
}

bool Connection::wait_readable(Clock::duration left) {
  if (reader_.has_buffered()) return true;
  std::array<pollfd, 2> fds{};
  fds[0] = {transport_->fd(), POLLIN, 0};
  if (sender_.has_queued()) fds[0].events |= POLLOUT;
  fds[1] = {kick_.get(), POLLIN, 0};
  left = std::max(left, Clock::duration::zero());
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
  const timespec timeout{seconds.count(), (left - seconds).count()};
  if (::ppoll(fds.data(), fds.size(), &timeout, nullptr) <= 0) return false;
  if (fds[1].revents != 0) {
    eventfd_t value = 0;
    ::eventfd_read(kick_.get(), &value);
  }
  if ((fds[0].revents & POLLOUT) != 0) {
    if (auto flushed = sender_.flush(); !flushed) die(std::move(flushed.error()));
  }
  return (fds[0].revents & ~POLLOUT) != 0;
}

// True when the reply to `until` has come, or the connection is dead. Leaves no whole message in
// the reader's buffer when it returns true: the socket would not tell anybody of it.
bool Connection::read_some(const PendingCall* until) {
  using Reading = MessageReader::Reading;
  bool done = false;
  for (int left = kReadBudget; left > 0 || done; --left) {
    if (done && !reader_.has_buffered()) return true;
    // Looked at before each receive: a reply that is there already was asked for before.
    const auto reading = pending_.expects_fds() ? Reading::exactly : Reading::ahead;
    auto message = reader_.next(*transport_, reading);
    if (!message) {
      die(std::move(message.error()));
      return true;
    }
    if (!*message) return done;
    done = dispatch(**message, until) || done;
  }
  return false;
}

bool Connection::dispatch(IncomingMessage& message, const PendingCall* until) {
  AtomicCounters::count(counters_.bytes_in, message.header.command, message.header.size);
  if (!message.is_reply()) {
    serve(message);
    return false;
  }
  using Kind = PendingTable::Match::Kind;
  const auto command = static_cast<wire::Command>(message.header.command);
  std::unique_lock lock(mutex_);
  if (dead_) return true;
  const PendingTable::Match match = pending_.take(message.header.id, command);
  switch (match.kind) {
    case Kind::unknown:
    case Kind::late:
      AtomicCounters::count(counters_.late_replies);
      return false;
    case Kind::wrong_command:
      lock.unlock();
      broken("a reply names command " + std::to_string(message.header.command) +
             ", its request had another");
      return true;
    case Kind::call:
      break;
  }
  PendingCall& call = *match.call;
  timeouts_in_row_ = 0;
  call.connection_ = nullptr;
  const bool refused = (message.header.flags & wire::kError) != 0;
  note_end(call, refused ? ObservedMessage::End::refused : ObservedMessage::End::answered,
           message.header.size);
  call.reply_.header = message.header;
  const auto kept = message.payload.first(std::min(call.keep_, message.payload.size()));
  call.reply_.payload.assign(kept);
  call.reply_.fds = std::move(message.fds);
  call.done_ = true;
  if (call.sleeping_) call.arrived_.notify_one();
  if (single_flight()) turn_.notify_all();
  return &call == until;
}

void Connection::serve(IncomingMessage& message) {
  AtomicCounters::count(counters_.received, message.header.command);
  if (dma_on_main_.load(std::memory_order_relaxed) && DmaServer::is_dma(message.header)) {
    set_single_flight();
  }
  dma_.serve(message, dma_reply_, options_.observer);
  if (dma_reply_.empty()) return;
  AtomicCounters::count(counters_.bytes_out, message.header.command, dma_reply_.size());
  const iovec part{dma_reply_.data(), dma_reply_.size()};
  const auto sent = sender_.send({&part, 1}, {}, Sender::kReplyBacklog);
  if (sent) return;  // queued or not: whoever reads looks at the queue before it waits again
  if (sent.error().kind == Error::Kind::limit) {
    broken("the server sends requests without reading the replies");
  } else {
    die(sent.error());
  }
}

void Connection::hand_on() {
  if (PendingCall* const next = pending_.sleeper()) {
    next->arrived_.notify_one();
  } else if (pending_.in_flight() == 0) {  // else a thread is on its way from submit() to wait()
    watch_again();
  }
}

// ---- The event loop's side ----------------------------------------------------------------------

std::uint32_t Connection::wanted_events() const {
  return kHangUp | (sender_.has_queued() ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void Connection::arm(std::uint32_t events) const {
  if (!watched_ || dead_ || armed_ == events) return;
  epoll_event event{};
  event.events = events;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, transport_->fd(), &event) == 0) armed_ = events;
}

void Connection::sleep_on() {
  ++uses_;
  arm(kHangUp);
}

void Connection::watch_again() {
  if (!watched_ || dead_) return;
  // Where the server asks for DMA on this socket, it must not wait for a tick.
  if (single_flight() || sender_.has_queued()) return arm(wanted_events());
  if (!ticking_ && (armed_ & EPOLLIN) == 0) set_tick();
}

void Connection::set_tick() {
  itimerspec when{};
  when.it_value.tv_nsec = kTickNanoseconds;
  ticking_ = ::timerfd_settime(tick_.get(), 0, &when, nullptr) == 0;
  uses_at_tick_ = uses_;
  if (!ticking_) arm(wanted_events());
}

void Connection::on_tick() {
  std::uint64_t expirations = 0;
  if (!ticking_) return;
  if (::read(tick_.get(), &expirations, sizeof expirations) != sizeof expirations) return;
  ticking_ = false;
  if (reading_ || pending_.in_flight() > 0) return;  // who leaves last calls watch_again()
  if (uses_ != uses_at_tick_) return set_tick();
  arm(wanted_events());
}

void Connection::nudge() {
  const std::lock_guard lock(mutex_);
  if (reading_) {
    ::eventfd_write(kick_.get(), 1);
  } else if (pending_.in_flight() == 0) {
    arm(wanted_events());
  }
}

int Connection::poll_fd() const {
  const std::lock_guard lock(mutex_);
  if (!watched_ && !dead_) {
    epoll_event event{};
    event.events = reading_ || pending_.in_flight() > 0 ? kHangUp : wanted_events();
    epoll_event tick{};
    tick.events = EPOLLIN;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, tick_.get(), &tick) == 0 &&
        ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, transport_->fd(), &event) == 0) {
      watched_ = true;
      armed_ = event.events;
    }
  }
  return epoll_.get();
}

void Connection::service() {
  {
    const std::lock_guard lock(mutex_);
    on_tick();
    if (dead_ || reading_) return;
    reading_ = true;
  }
  if (sender_.has_queued()) {
    if (auto flushed = sender_.flush(); !flushed) die(std::move(flushed.error()));
  }
  do {
    read_some(nullptr);
  } while (reader_.has_buffered() && alive());
  const std::lock_guard lock(mutex_);
  reading_ = false;
  hand_on();
}

// ---- Death --------------------------------------------------------------------------------------

Error Connection::end(Error reason, bool tell) {
  std::function<void(const Error&)> handler;
  {
    const std::lock_guard lock(mutex_);
    if (dead_) return death_;
    dead_ = true;
    closed_here_ = !tell;
    death_ = reason;
    dead_flag_.store(true, std::memory_order_release);
    if (watched_) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, transport_->fd(), nullptr);
    for (PendingCall* const call : pending_.take_all()) {
      call->connection_ = nullptr;
      note_end(*call, ObservedMessage::End::lost);
      call->failure_ = reason;
      call->done_ = true;
      call->arrived_.notify_one();
    }
    turn_.notify_all();
    handler = std::exchange(down_handler_, nullptr);
  }
  transport_->shutdown();
  ::eventfd_write(kick_.get(), 1);
  if (death_hook_) death_hook_();
  if (tell && handler) handler(reason);
  return reason;
}

Error Connection::die(Error reason) {
  return end(std::move(reason), true);
}

Error Connection::broken(std::string what) {
  return die({Error::Kind::protocol, EPROTO, std::move(what)});
}

void Connection::close() {
  end({Error::Kind::closed, ESHUTDOWN, "this side closed the connection"}, false);
}

Error Connection::death() const {
  const std::lock_guard lock(mutex_);
  return death_;
}

void Connection::set_down_handler(std::function<void(const Error&)> handler) {
  std::unique_lock lock(mutex_);
  if (!dead_) {
    down_handler_ = std::move(handler);
    return;
  }
  const Error reason = death_;
  const bool tell = !closed_here_;
  lock.unlock();
  if (tell && handler) handler(reason);
}

ClientCounters Connection::counters() const {
  ClientCounters snapshot;
  const auto load = [](const AtomicCounters::Counter& c) {
    return c.load(std::memory_order_relaxed);
  };
  counters_.add_to(snapshot);
  snapshot.bytes_sent = sender_.bytes_sent();
  sender_.add_posted_to(snapshot);
  snapshot.bytes_received =
      std::accumulate(snapshot.bytes_in.begin(), snapshot.bytes_in.end(), std::uint64_t{0});
  snapshot.round_trips = load(counters_.round_trips);
  snapshot.dependent_round_trips = load(counters_.dependent_round_trips);
  snapshot.posted = load(counters_.posted);
  snapshot.timeouts = load(counters_.timeouts);
  snapshot.late_replies = load(counters_.late_replies);
  snapshot.errors = load(counters_.errors);
  return snapshot;
}

}  // namespace outboard::vfio_user
