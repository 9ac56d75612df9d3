#pragma once

// Ctrl-C and its kin as a file descriptor, so that every wait ends in order and every child and
// temporary file goes with its owner. One, made by main() before any child; main thread.

#include "tools/bench/error.h"
#include "vfio_user/unique_fd.h"

namespace outboard::bench {

class Interrupt {
 public:
  // Blocks SIGINT, SIGTERM and SIGHUP for this process; children get them back.
  Interrupt();

  // Readable once one of them came, and for ever after.
  [[nodiscard]] int fd() const { return fd_.get(); }
  // The signal that came, or 0.
  [[nodiscard]] int signal();
  // An error with that signal; call when fd() is readable.
  [[nodiscard]] tl::unexpected<Error> error();

 private:
  vfio_user::UniqueFd fd_;
  int signal_ = 0;
};

}  // namespace outboard::bench
