// The controller: its registers (§3.1), and the turn in which commands are fetched, carried out
// and answered. Owns the namespaces and everything between registers and backends. One thread
// calls every member.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "tools/nvme/admin_commands.h"
#include "tools/nvme/core.h"
#include "tools/nvme/format_command.h"
#include "tools/nvme/io_commands.h"

namespace outboard::nvme {

struct ControllerOptions {
  Identity identity;
  u16 io_queues = kMaxIoQueues;
};

class Controller final : private Engine {
 public:
  // Vectors: one for the admin queue and one for each I/O queue pair.
  Controller(ControllerOptions options, std::vector<Namespace> namespaces, ControllerState& state,
             Doorbells& doorbells, GuestDma& dma, Interrupts& interrupts,
             SavedState* saved = nullptr);

  // With a `saved` that holds a predecessor's state, checked (state_check.h), in place of a reset:
  // takes it over, and stands still until resume() or a reset by the guest. No byte of guest memory
  // is touched before.
  void take_over();
  // Goes on: guest memory is where it was. Completions that were begun are made whole, then what
  // was in flight runs again in the order in which it was fetched.
  void resume();
  // Between the two.
  bool suspended() const { return suspended_; }

  // BAR0, of kBar0Size bytes. Reads of any width; registers are written in dwords, others are
  // dropped (§3.1: accesses of their native width or in aligned dwords).
  void read_bar(u64 offset, std::span<std::byte> data);
  void write_bar(u64 offset, std::span<const std::byte> data);

  // One bounded turn. True when there was something to do, so that there may be more.
  bool turn();

  // The caller is about to wait for its file descriptors: the guest is asked to ring. False: there
  // is something to do after all.
  bool may_sleep() {
    return !active() || suspended_ || fatal_state() || discarding_ || core_.queues.arm_shadow();
  }
  // The guest keeps the I/O queues' doorbells in memory (§5.7).
  bool shadowed() const { return core_.queues.shadowed(); }
  // Whether the I/O submission queue is there.
  bool has_sq(u16 id) const { return core_.queues.sq(id).live != 0; }
  void count_wake() { ++core_.counters.doorbell_wakes; }

  // CSTS.RDY or on its way there or away: turn() has work that no event announces.
  bool active() const { return (core_.state.registers.csts & kCstsReady) != 0; }
  bool io_in_flight() const { return backend_requests_ != 0; }

  // As after power-on. Waits for what the backends have.
  void reset();
  // The guest's windows are about to change: waits for what the backends have and forgets host
  // addresses. Afterwards no byte of guest memory is touched until the next turn().
  void before_window_change();
  // Flushes every namespace and waits for it; the way out. False: a flush failed.
  bool flush_all();

  const Counters& counters() const { return core_.counters; }
  IoClock& io_clock() { return core_.io_clock; }
  std::span<const Namespace> namespaces() const { return core_.namespaces; }
  u16 vectors() const { return core_.vectors; }
  // The level that the interrupt pin should have.
  bool pin_level() const;

 private:
  static constexpr u32 kRequests = kMaxInFlight;  // in flight at most, all queues together
  static constexpr u32 kAdminReserve = 32;        // of which I/O queues may not take these
  static constexpr u32 kFetchesPerTurn = 64;      // of one queue
  static constexpr u64 kBytesPerTurn = 32
                                       << 20;  // fetching stops above; a backend in memory copies

  void finish(Request& request, Status status, u32 dw0) override;
  void start(Request& request, Namespace& ns) override;

  u32 read_register(u64 offset) const;
  void write_register(u64 offset, u32 value);
  void write_cc(u32 value);
  void enable();
  void begin_disable();
  void end_disable();
  void begin_shutdown();
  void fatal();

  bool look_at_doorbells();
  bool fetch();
  Request& add_request();
  static void prepare(Request& request, u16 sq);
  void execute(Request& request);
  bool reap();
  bool kick();
  void advance(Request& request);
  void settle();
  void release_posted();
  void release(Request& request);
  void signal();
  void drain();
  bool fatal_state() const { return (core_.state.registers.csts & kCstsFatal) != 0; }

  Core core_;
  AdminCommands admin_;
  IoCommands io_;
  FormatCommand format_;
  std::vector<std::unique_ptr<Request>> requests_;
  std::vector<Request*> free_;
  std::vector<BackendRequest*> done_;
  std::vector<bool> submitted_;  // by namespace: kick() is due
  std::vector<u32> in_backend_;  // by namespace: requests the backend has
  u32 backend_requests_ = 0;     // their sum
  u64 turn_bytes_ = 0;           // begun in this turn
  u32 next_sq_ = 0;              // where the next turn starts: no queue is always first
  bool discarding_ = false;      // CC.EN went to 0; what finishes is dropped
  bool draining_ = false;
  bool suspended_ = false;            // a predecessor's state, and not yet its guest's memory
  Request* paused_format_ = nullptr;  // finished a step while draining
  bool shutting_down_ = false;
  Request shutdown_flush_;
  bool shutdown_flushing_ = false;
  u32 shutdown_next_ = 0;
};

}  // namespace outboard::nvme
