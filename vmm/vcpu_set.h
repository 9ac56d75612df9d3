#pragma once

// All vCPUs of the machine and their threads. Owned by the machine, created on the main thread.
//
// A vCPU thread is always in one of three states:
//
//     parked ──resume()──▶ running ──pause(), request_pause()──▶ parked
//        └──────────────────── stop() ────────────────────────▶ ended
//
// A kick never gets lost: the order to pause is published, then immediate_exit is set in the shared
// area, then a signal is sent. A thread that is about to enter the guest sees immediate_exit, one
// that is in the guest or in the kernel gets the signal, one that is in a device's access looks at
// the order when the access is done. A thread clears its own immediate_exit only on its way from
// parked to running, under the lock that orders are published with.
//
// A thread parks only after KVM has finished the instruction of the last exit, so that a parked
// vCPU's registers may be set.

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <pthread.h>

#include "vmm/bus.h"
#include "vmm/error.h"
#include "vmm/exits.h"
#include "vmm/log.h"
#include "vmm/marks.h"
#include "vmm/trace.h"
#include "vmm/vcpu.h"

namespace outboard::vmm {

// What a vCPU did that ends or restarts the machine. All vCPUs have been told to pause when it is
// reported.
struct VcpuEvent {
  enum class Kind { shutdown /* triple fault */, failure, power_off, reset };
  Kind kind = Kind::failure;
  std::uint32_t vcpu = 0;
  std::string what;  // one line
};

class Sandbox;

class VcpuSet {
 public:
  // Called on a vCPU's thread.
  using EventHandler = std::function<void(VcpuEvent)>;

  // Starts a thread a vCPU, parked. `affinity[i]`, where there is one and it is not empty, are the
  // host CPUs of vCPU i. Errors: a host CPU that does not exist (ExitStatus::configuration), no
  // thread (ExitStatus::internal_error). `trace`, which may be none, outlives the set and hears of
  // every exit. `sandbox`, which may be none, outlives it too, and every thread begins by entering
  // it.
  [[nodiscard]] static Result<std::unique_ptr<VcpuSet>> create(
      std::vector<Vcpu> vcpus, Bus& bus, Marks& marks, EventHandler handler,
      const std::vector<std::vector<int>>& affinity, Trace* trace = nullptr,
      Sandbox* sandbox = nullptr);

  VcpuSet(const VcpuSet&) = delete;
  VcpuSet& operator=(const VcpuSet&) = delete;
  ~VcpuSet();  // stop()

  // Lets all vCPUs run. Not from a vCPU thread.
  void resume();

  // Returns when all vCPUs are parked. A vCPU that waits for a device's answer holds it up for at
  // most that device's deadline. Not from a vCPU thread.
  void pause();

  // Tells all vCPUs to pause and returns at once. Any thread, also a vCPU's in the middle of an
  // access: it goes no further than the instruction at hand.
  void request_pause();

  // Ends all threads. Not from a vCPU thread.
  void stop();

  // The vCPUs, for setting and reading registers while they are parked.
  [[nodiscard]] std::vector<Vcpu>& vcpus() { return vcpus_; }

  // One a vCPU. Any thread.
  [[nodiscard]] std::vector<ExitCounters> counters() const;

 private:
  enum class Order { pause, run, stop };
  enum class State { parked, running, ended };

  struct Seat {  // one thread's own
    std::jthread thread;
    State state = State::parked;    // under mutex_
    std::uint64_t repairs = 0;      // its own thread: what repair_pages() said last
    std::uint32_t unexplained = 0;  // its own thread: failures since, though no page was gone
    std::array<std::atomic<std::uint64_t>, kExitKinds> exits{};  // by kind
    std::atomic<std::uint64_t> unanswered{0};
  };

  VcpuSet(std::vector<Vcpu> vcpus, Bus& bus, Marks& marks, EventHandler handler, Trace* trace,
          Sandbox* sandbox);
  void thread_main(std::size_t index);
  bool wait_for_run(Vcpu& vcpu, Seat& seat);  // false: end
  void run_until_told(Vcpu& vcpu, Seat& seat, Bus::Reader& reader);
  void handle(const VcpuExit& exit, Vcpu& vcpu, Seat& seat, Bus::Reader& reader);
  void act_on(const VcpuExit& exit, Vcpu& vcpu, Seat& seat, Bus::Reader& reader);
  bool repair(Seat& seat);
  void note_unanswered(Seat& seat, const Bus::Reader& reader, const char* space,
                       std::uint64_t address, bool write);
  void report(VcpuEvent event);
  void give(Order order);                     // publishes and kicks
  [[nodiscard]] bool all(State state) const;  // under mutex_

  std::vector<Vcpu> vcpus_;
  Bus& bus_;
  Marks& marks_;
  const EventHandler handler_;
  Trace* const trace_;                        // may be none
  Sandbox* const sandbox_;                    // may be none
  log::RateLimit unanswered_log_;             // the guest can trigger these lines
  std::vector<std::unique_ptr<Seat>> seats_;  // fixed after create()

  mutable std::mutex mutex_;  // a leaf: nothing is called under it but pthread_kill
  std::condition_variable changed_;
  std::atomic<Order> order_{Order::pause};  // written under mutex_, read by vCPU threads
};

}  // namespace outboard::vmm
