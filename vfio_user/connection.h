// One stream to a server: requests and their replies, and who reads.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include <sys/epoll.h>

#include "vfio_user/client_counters.h"
#include "vfio_user/message_observer.h"
#include "vfio_user/message_reader.h"
#include "vfio_user/pending.h"
#include "vfio_user/reply_poll.h"
#include "vfio_user/result.h"
#include "vfio_user/sender.h"
#include "vfio_user/transport.h"
#include "vfio_user/unique_fd.h"
#include "vfio_user/wire.h"

namespace outboard::vfio_user {

class DmaServer;

// Owns the transport and everything that happens on it. Every member may be called from any thread.
//
// The reader role. At most one thread reads at a time (`reading_`). A thread in wait() takes the
// role if it is free and keeps it until its own reply has come, its deadline has passed or the
// connection died; meanwhile it delivers the replies of the others, who sleep each on its own
// condition variable, and serves the requests of the server. On leaving it wakes one sleeper, who
// takes over. Whoever leaves wait() while nobody reads does the same hand-on, so a wake-up that
// meets a time-out is never lost.
//
// The event loop comes through service() when nobody waits. To tell it so before and after every
// access would cost two system calls an access, so it is told lazily: the first access takes the
// socket's input out of the epoll fd, a tick puts it back when no access came for a while. Until
// then it sees only the end of the stream, and what the server sends unasked waits that long,
// unless it has asked for DMA on this socket before (single flight): then both calls are made.
//
// Locks. `mutex_` guards the fields so marked and is never held across a system call that can
// block, nor while the server's requests are served. The lock of the Sender is innermost and is
// never taken with `mutex_` held.
class Connection final {
 public:
  using Clock = std::chrono::steady_clock;

  struct Options {
    std::uint32_t timeouts_until_dead = 3;
    std::uint32_t max_message = 0;  // bytes of the largest message accepted, header included
    MessageObserver* observer = nullptr;
    std::chrono::microseconds reply_poll{};  // window of ReplyPoll
  };

  struct Request {
    wire::Command command{};
    std::span<const iovec> body;
    std::span<const int> fds;
    std::chrono::milliseconds timeout{};
    std::size_t keep = 0;  // bytes of the reply's payload to keep; a longer one is drained
    bool poll = false;     // its reply may be polled for (Options::reply_poll)
  };

  // Errors: system (no file descriptor left for its own three).
  [[nodiscard]] static Result<std::unique_ptr<Connection>> create(
      std::unique_ptr<Transport> transport, DmaServer& dma, Options options);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Sends a request; the reply is fetched by wait(). In single-flight mode it first waits for its
  // turn; a caller that holds other calls in flight must pass `may_wait_turn` = false and gets
  // false when it has to wait() for those first.
  [[nodiscard]] Result<bool> submit(PendingCall& call, const Request& request,
                                    bool may_wait_turn = true);
  // Waits for the reply. Errors: server (with its errno), timeout, closed or protocol (the
  // connection is dead).
  [[nodiscard]] Result<Reply> wait(PendingCall& call);
  // submit() and wait().
  [[nodiscard]] Result<Reply> call(const Request& request);
  // Abandons a call in flight (its destructor does).
  void give_up(PendingCall& call);

  // Sends a posted write of up to 8 bytes. False, and nothing sent, when too much is queued
  // already: the caller then sends one that waits. `multi_payload`: bytes of a REGION_WRITE_MULTI
  // payload, 0 when the server does not know the command.
  [[nodiscard]] Result<bool> post(const wire::WriteMultiEntry& entry, std::size_t multi_payload);

  // From now on one request is in flight at a time (no twin socket, and the server asks for DMA on
  // this one).
  void set_single_flight();
  // Whether a DMA message on this connection turns single flight on: false once a twin socket
  // exists.
  void expect_dma_on_main(bool expected) {
    dma_on_main_.store(expected, std::memory_order_relaxed);
  }
  [[nodiscard]] bool single_flight() const {
    return single_flight_.load(std::memory_order_relaxed);
  }

  // The connection is dead from now on, if it was not before: all waiters return `reason`. Returns
  // what later calls return.
  Error die(Error reason);
  // die() with a protocol error.
  Error broken(std::string what);
  // As die(), but no down handler is called.
  void close();
  [[nodiscard]] bool alive() const { return !dead_flag_.load(std::memory_order_acquire); }
  [[nodiscard]] Error death() const;
  void set_down_handler(std::function<void(const Error&)> handler);
  // Called on death with no lock held, before the down handler; set once, before any other thread
  // knows the connection.
  void set_death_hook(std::function<void()> hook) { death_hook_ = std::move(hook); }

  [[nodiscard]] int poll_fd() const;
  void service();

  [[nodiscard]] ClientCounters counters() const;

 private:
  Connection(std::unique_ptr<Transport> transport, DmaServer& dma, Options options, UniqueFd kick,
             UniqueFd epoll, UniqueFd tick);

  Error end(Error reason, bool tell);
  Result<Reply> finish(PendingCall& call);  // mutex_ held, call is done
  Error time_out(std::unique_lock<std::mutex>& lock, PendingCall& call);  // releases the lock
  // mutex_ held: the observer, if there is one, hears of the call.
  void note_end(PendingCall& call, ObservedMessage::End end, std::uint32_t bytes_in = 0) const;
  Result<Reply> wait_at_most(PendingCall& call, Clock::duration left);

  // The reader role.
  Clock::duration read_for(std::unique_lock<std::mutex>& lock, PendingCall& call,
                           Clock::duration left);
  bool poll_for(const PendingCall& call);
  [[nodiscard]] bool wait_readable(Clock::duration left);
  bool read_some(const PendingCall* until);
  bool dispatch(IncomingMessage& message, const PendingCall* until);
  void serve(IncomingMessage& message);
  void hand_on();  // mutex_ held, nobody reads

  // What the epoll fd tells the event loop; all with mutex_ held.
  static constexpr std::uint32_t kHangUp = EPOLLRDHUP;
  void arm(std::uint32_t events) const;
  void sleep_on();     // a thread will read
  void watch_again();  // nobody reads, nothing is in flight
  void set_tick();
  void on_tick();

  void nudge();
  [[nodiscard]] std::uint32_t wanted_events() const;

  const std::unique_ptr<Transport> transport_;
  DmaServer& dma_;
  const Options options_;
  const UniqueFd kick_;   // eventfd: makes the reader look again
  const UniqueFd epoll_;  // poll_fd()
  const UniqueFd tick_;   // timerfd, one-shot: look whether the connection is still busy
  std::function<void()> death_hook_;
  Sender sender_;

  MessageReader reader_;              // belongs to whoever has the reader role
  std::vector<std::byte> dma_reply_;  // likewise
  ReplyPoll reply_poll_;              // likewise

  mutable std::mutex mutex_;
  PendingTable pending_;             // guarded by mutex_, but for expects_fds()
  bool reading_ = false;             // guarded by mutex_: the reader role is taken
  mutable bool watched_ = false;     // guarded by mutex_: the epoll fd has the socket
  mutable std::uint32_t armed_ = 0;  // guarded by mutex_: with these events
  bool ticking_ = false;             // guarded by mutex_: tick_ is set
  std::uint64_t uses_ = 0;           // guarded by mutex_: requests, and turns of the reader
  std::uint64_t uses_at_tick_ = 0;   // guarded by mutex_: when tick_ was set
  bool dead_ = false;                // guarded by mutex_
  bool closed_here_ = false;         // guarded by mutex_
  Error death_;                      // guarded by mutex_
  std::function<void(const Error&)> down_handler_;  // guarded by mutex_
  std::uint32_t timeouts_in_row_ = 0;               // guarded by mutex_
  Deadline last_timeout_ = Deadline::min();         // guarded by mutex_
  std::condition_variable turn_;  // with mutex_: in single flight, the way is free

  std::atomic<bool> dead_flag_{false};  // = dead_, for a look without the lock
  std::atomic<bool> single_flight_{false};
  std::atomic<bool> dma_on_main_{true};
  AtomicCounters counters_;
};

}  // namespace outboard::vfio_user
