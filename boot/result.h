// The result type of the boot room: a value, or one line that names what is wrong and the remedy.
#pragma once

#include <string>
#include <utility>

#include <tl/expected.hpp>

namespace outboard::boot {

// `message` is one line without a trailing full stop or newline, written so that the caller can put
// the file's path and ": " in front of it.
struct Error {
  std::string message;
};

template <class T>
using Result = tl::expected<T, Error>;

[[nodiscard]] inline tl::unexpected<Error> fail(std::string message) {
  return tl::make_unexpected(Error{std::move(message)});
}

}  // namespace outboard::boot
