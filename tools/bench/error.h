#pragma once

// What went wrong, for people, and the exit status it leads to.

#include <string>
#include <utility>

#include <tl/expected.hpp>

namespace outboard::bench {

enum class ExitStatus : int {
  done = 0,
  failed = 1,   // a run failed, or its deadline passed
  usage = 2,    // the command line, or a configuration that cannot be measured
  missing = 3,  // a program, kernel or image is not there or lacks what is needed
  output = 4,   // a file of results cannot be written
};

struct Error {
  ExitStatus status = ExitStatus::failed;
  std::string message;
  int signal = 0;     // ended by this signal: the exit status is 128 + signal
  bool late = false;  // a run was not done within its limit
};

[[nodiscard]] inline int to_int(const Error& error) {
  return error.signal != 0 ? 128 + error.signal : static_cast<int>(error.status);
}

template <typename T>
using Result = tl::expected<T, Error>;

[[nodiscard]] inline tl::unexpected<Error> fail(ExitStatus status, std::string message) {
  return tl::unexpected(Error{status, std::move(message), 0, false});
}

}  // namespace outboard::bench
