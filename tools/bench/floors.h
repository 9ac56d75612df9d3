#pragma once

// What the host itself takes for the pieces of an access, with nobody else's code around them: a
// message and its answer, a message, an eventfd, between two processes; and 4 KiB reads without a
// guest. All figures are nanoseconds by CLOCK_MONOTONIC, one a sample.
//
// Made and used by the bench's main thread, which has no other threads when it makes one (it
// forks).

#include <cstdint>
#include <memory>
#include <vector>

#include <sys/types.h>

#include "tools/bench/access_fork.h"
#include "tools/bench/access_memory.h"
#include "vfio_user/result.h"
#include "vfio_user/unique_fd.h"

namespace outboard::bench {

using Times = std::vector<double>;

class Floors final {
 public:
  // `disk` bytes are what the reads are from.
  static vfio_user::Result<std::unique_ptr<Floors>> create(const Placement& placement,
                                                           std::size_t disk);
  Floors(const Floors&) = delete;
  Floors& operator=(const Floors&) = delete;
  ~Floors();

  // A request as long as REGION_READ, its reply as long as that of 4 bytes; both sides block in
  // recv().
  [[nodiscard]] Times ping_pong(std::uint32_t samples);
  // send() of as many bytes as a posted REGION_WRITE to a process that blocks in recv(), which has
  // `gap_us` to go back to it each time.
  [[nodiscard]] Times one_way(std::uint32_t samples, std::uint32_t gap_us);
  // One of each, for a loop that times it with something else.
  void ask();
  void tell();

  // write() to an eventfd on which a process blocks in read(); then with the time until that
  // process has said in shared memory that it is awake.
  [[nodiscard]] Times signal(std::uint32_t samples, std::uint32_t gap_us);
  [[nodiscard]] Times signal_to_wake(std::uint32_t samples, std::uint32_t gap_us);

  // Copies of 4 KiB from random places.
  [[nodiscard]] Times copy_reads(std::uint32_t samples, std::uint32_t inner);
  // The same by io_uring from a file in memory, `depth` in flight. Empty where there is no
  // io_uring.
  [[nodiscard]] Times uring_reads(std::uint32_t samples, std::uint32_t inner, std::uint32_t depth);

 private:
  struct Uring;
  Floors();
  SharedMemory word_;  // the waiter's count
  SharedMemory disk_;
  std::unique_ptr<Uring> uring_;
  vfio_user::UniqueFd talk_, listen_, bell_;
  pid_t answerer_ = -1, listener_ = -1, waiter_ = -1;
  std::uint64_t random_ = 88172645463325252U;

  std::size_t random_page();
};

}  // namespace outboard::bench
