// Counts what the calling thread asks of the kernel and of the allocator. Linked into a program,
// its definitions take the place of the C library's.
#pragma once

#include <cstdint>

namespace outboard::cost_test {

struct Calls {
  std::uint64_t sends = 0;     // send, sendmsg
  std::uint64_t receives = 0;  // recv, recvmsg
  std::uint64_t polls = 0;     // poll, ppoll, epoll_wait
  std::uint64_t watches = 0;   // epoll_ctl, timerfd_settime
  std::uint64_t others = 0;    // read, write, ioctl
  std::uint64_t clocks = 0;    // clock_gettime: no system call as a rule, but not free
  std::uint64_t allocations = 0;

  [[nodiscard]] std::uint64_t system_calls() const {
    return sends + receives + polls + watches + others;
  }
};

// Of this thread, since it began.
[[nodiscard]] Calls calls();
[[nodiscard]] Calls operator-(const Calls& after, const Calls& before);

}  // namespace outboard::cost_test
