#pragma once

// What must be done to start from a kernel file, and nothing else: the file is unpacked, if it is
// packed, and copied into fresh guest memory.

#include <cstddef>
#include <cstdint>
#include <string>

#include "tools/bench/error.h"
#include "tools/bench/sample.h"
#include "vfio_user/unique_fd.h"

namespace outboard::bench {

// Measured in turn with what it is the floor of: the host's memory costs both the same then. What
// has just been freed is at hand; what was free for a while may have to be had from a hypervisor.
class LoadFloor {
 public:
  // `memory`: bytes of the guest's memory. Errors: the file cannot be read (ExitStatus::missing).
  [[nodiscard]] static Result<LoadFloor> open(const std::string& kernel, std::uint64_t memory);

  // Once more, on the calling thread. Errors: the file is no kernel (ExitStatus::missing).
  [[nodiscard]] Result<void> measure();
  // Nanoseconds of each time.
  [[nodiscard]] const Sample& sample() const { return sample_; }

 private:
  LoadFloor() = default;
  [[nodiscard]] Error unreadable() const;

  std::string kernel_;
  vfio_user::UniqueFd file_;
  std::size_t file_size_ = 0;  // bytes
  std::size_t memory_ = 0;     // bytes
  Sample sample_;
};

}  // namespace outboard::bench
