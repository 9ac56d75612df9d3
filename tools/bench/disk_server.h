#pragma once

// outboard-nvme as the device of one run: started before the VMM, so that its start does not count,
// and ended after it. Main thread.

#include <string>
#include <vector>

#include "tools/bench/child.h"
#include "tools/bench/interrupt.h"
#include "tools/bench/run.h"

namespace outboard::bench {

class DiskServer {
 public:
  // Runs `command` with --socket and the descriptors that this class needs, and waits until it
  // listens.
  [[nodiscard]] static Result<DiskServer> start(const std::vector<std::string>& command,
                                                const std::string& socket, Interrupt& interrupt);

  DiskServer(DiskServer&&) = default;

  [[nodiscard]] const std::string& socket() const { return socket_; }
  // Readable when the guest's first read is done; then take_marks().
  [[nodiscard]] int first_read_fd() const { return first_read_.get(); }
  // What the server's clock said since the last call, the kernel's enabling of the controller only:
  // nothing when firmware was all that read. Times are absolute (CLOCK_MONOTONIC).
  [[nodiscard]] std::vector<Mark> take_marks();
  // SIGTERM, and waits.
  void stop();

 private:
  DiskServer(Child child, std::string socket, vfio_user::UniqueFd first_read,
             vfio_user::UniqueFd errors)
      : child_(std::move(child)),
        socket_(std::move(socket)),
        first_read_(std::move(first_read)),
        errors_(std::move(errors)) {}

  Child child_;
  std::string socket_;
  vfio_user::UniqueFd first_read_;
  vfio_user::UniqueFd errors_;
};

// The marks of one line of outboard-nvme --first-read-fd; none when the line is not understood, or
// when the read was on a queue that does not interrupt (firmware's).
[[nodiscard]] std::vector<Mark> marks_of_line(std::string_view line);

}  // namespace outboard::bench
