#pragma once

// A child process: started, watched by its pidfd, killed and reaped with its object. It also dies
// with this process. Main thread only.

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

#include "tools/bench/error.h"
#include "vfio_user/unique_fd.h"

namespace outboard::bench {

struct ChildOptions {
  std::vector<std::string> argv;         // the first with its path, or found on PATH
  std::vector<std::string> environment;  // NAME=VALUE, beside this process's own
  // Set to the time of the start (CLOCK_MONOTONIC, ns) if not empty.
  std::string stamp_variable;
  int output = -1;  // standard output; -1: /dev/null
  int errors = -1;  // standard error
  // Descriptor here, and its number there (3 and up).
  std::vector<std::pair<int, int>> descriptors;
};

// How a process ended: its exit status, or the signal.
struct Ended {
  int status = 0;
  int signal = 0;
  [[nodiscard]] bool ok() const { return status == 0 && signal == 0; }
};

[[nodiscard]] std::string to_string(const Ended& ended);

class Child {
 public:
  [[nodiscard]] static Result<Child> start(const ChildOptions& options);

  Child(Child&& other) noexcept;
  Child& operator=(Child&&) = delete;
  Child(const Child&) = delete;
  ~Child();  // SIGKILL, and reaps

  // Just before the process was made; nanoseconds, CLOCK_MONOTONIC.
  [[nodiscard]] std::uint64_t started() const { return started_; }
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }  // readable when it has ended

  void signal(int number) const;
  // Waits at most so long; nothing when it still runs.
  [[nodiscard]] std::optional<Ended> wait(int milliseconds);
  // SIGTERM, and SIGKILL after `grace` milliseconds.
  Ended stop(int grace);

 private:
  Child() = default;

  pid_t pid_ = -1;
  std::uint64_t started_ = 0;
  vfio_user::UniqueFd pidfd_;
  std::optional<Ended> ended_;
};

}  // namespace outboard::bench
