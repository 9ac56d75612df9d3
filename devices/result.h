// The error type of this room: one line for a person, and the errno behind it when there is one.
#pragma once

#include <string>
#include <utility>

#include <tl/expected.hpp>

namespace outboard::devices {

struct Error {
  std::string message;  // names the device, the thing and the remedy; no trailing newline
  int code = 0;         // positive errno, or 0 when none applies
  // The server is gone: told where that was noticed, and mended when it comes back.
  bool lost = false;
};

template <class T>
using Result = tl::expected<T, Error>;

[[nodiscard]] inline tl::unexpected<Error> failure(std::string message, int code = 0) {
  return tl::unexpected<Error>(Error{std::move(message), code, false});
}

}  // namespace outboard::devices
