#pragma once

// What happened to the machine and waits for the main thread: reasons to stop, and what vCPUs
// reported. Filled by any thread, emptied by the main thread, which the event loop wakes.

#include <mutex>
#include <optional>
#include <utility>

#include "vmm/event_loop.h"
#include "vmm/machine.h"
#include "vmm/vcpu_set.h"

namespace outboard::vmm {

class MachineEvents {
 public:
  explicit MachineEvents(EventLoop& loop) : loop_(loop) {}

  // The first reason to stop stays; later ones are dropped.
  void stop(StopReason reason) {
    {
      const std::lock_guard lock(mutex_);
      if (!stop_) stop_ = std::move(reason);
    }
    loop_.post([] {});
  }

  // Of the vCPUs' reports the first one counts: the others stopped because of it, or at the same
  // time for a reason of their own that no longer matters.
  void report(VcpuEvent event) {
    {
      const std::lock_guard lock(mutex_);
      if (!event_) event_ = std::move(event);
    }
    loop_.post([] {});
  }

  [[nodiscard]] std::optional<StopReason> stop_reason() const {
    const std::lock_guard lock(mutex_);
    return stop_;
  }

  // A report, if there is one; it stays until forget_event().
  [[nodiscard]] std::optional<VcpuEvent> event() const {
    const std::lock_guard lock(mutex_);
    return event_;
  }

  // All vCPUs are paused: reports of before are dealt with.
  void forget_event() {
    const std::lock_guard lock(mutex_);
    event_.reset();
  }

 private:
  EventLoop& loop_;
  mutable std::mutex mutex_;  // a leaf
  std::optional<StopReason> stop_;
  std::optional<VcpuEvent> event_;
};

}  // namespace outboard::vmm
