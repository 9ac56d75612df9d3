// Places where a test can have the process killed: SIGKILL to itself, as `kill -9` at that
// instruction. Compiled in by the CMake option OUTBOARD_FAIL_POINTS only, which follows
// OUTBOARD_TESTS; in a release build a fail point is nothing.
#pragma once

#include <cstdint>

#ifdef OUTBOARD_FAIL_POINTS
#include <signal.h>
#include <unistd.h>
#endif

namespace outboard::nvme {

// The life of a command, in order; then what registers do.
enum class FailPoint : int {
  fetch,           // a command is there
  fetch_recorded,  // it is in its record, the head has not moved
  fetched,         // the head has moved
  effect_begin,    // before an admin command changes the state
  effect_end,      // it has, and the record does not say so
  submit,          // before the backend gets the request
  submitted,       // the operating system has it
  complete,        // the backend is done
  answered,        // the record holds the status
  entry,           // the record names the place of the completion entry
  entry_begun,     // all of the entry but its last dword is written
  entry_written,   // all of it
  entry_counted,   // the tail has moved
  recorded,        // the record is free
  interrupt,       // before the vector is signalled
  interrupted,     // after
  enabling,        // CC.EN is 1, the admin queues are not made
  disabling,       // CC.EN is 0, the queues are still there
  kCount,
};

#ifdef OUTBOARD_FAIL_POINTS
// What the process is to die of: the point, or any with kCount, after having passed it `passes`
// times. Armed by a test in its child.
struct FailPlan {
  bool armed = false;
  FailPoint point = FailPoint::kCount;
  std::uint64_t passes = 0;
};
inline FailPlan fail_plan;

inline void fail_point(FailPoint point) {
  if (!fail_plan.armed || (fail_plan.point != FailPoint::kCount && fail_plan.point != point)) {
    return;
  }
  if (fail_plan.passes-- == 0) ::kill(::getpid(), SIGKILL);
}
#else
inline void fail_point(FailPoint) {}
#endif

}  // namespace outboard::nvme
