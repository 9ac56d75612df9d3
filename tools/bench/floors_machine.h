#pragma once

// The bench's guest on the smallest loop around KVM_RUN that there can be: what an exit, or a store
// that KVM turns into an eventfd, costs with no VMM around it. Reads are answered with zero, writes
// are dropped, both without looking further than the address.
//
// Made and used by the bench's main thread, which has no other threads when it makes one (it forks
// the process that waits for the bell).

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <sys/types.h>

#include "tools/bench/access_fork.h"
#include "tools/bench/access_memory.h"
#include "tools/bench/access_orders.h"
#include "vfio_user/result.h"
#include "vfio_user/unique_fd.h"

struct kvm_run;

namespace outboard::bench {

class BareMachine final {
 public:
  static vfio_user::Result<std::unique_ptr<BareMachine>> create(const Placement& placement);
  BareMachine(const BareMachine&) = delete;
  BareMachine& operator=(const BareMachine&) = delete;
  ~BareMachine();

  // Samples in ticks. `in_each`, if there is one, is called in every exit before the guest goes on.
  vfio_user::Result<std::vector<double>> run(const Order& order,
                                             const std::function<void()>& in_each = {});
  [[nodiscard]] const TickLength& tick() const { return tick_; }
  // KVM_RUN calls so far.
  [[nodiscard]] std::uint64_t exits() const { return exits_; }

 private:
  BareMachine() = default;
  vfio_user::Result<void> set_up();
  vfio_user::Result<void> run_until_it_asks(const std::function<void()>& in_each);
  [[nodiscard]] Shared& shared() const { return memory_.at<Shared>(kBareShared); }

  SharedMemory memory_;  // the guest's RAM
  vfio_user::UniqueFd kvm_, vm_, vcpu_, bell_;
  kvm_run* area_ = nullptr;
  std::size_t area_size_ = 0;
  pid_t waiter_ = -1;
  TickLength tick_;
  std::uint64_t exits_ = 0;
};

}  // namespace outboard::bench
