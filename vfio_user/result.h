#pragma once

#include <string>
#include <utility>

#include <tl/expected.hpp>

namespace outboard::vfio_user {

/// Why an operation failed. `message` is one line that names the thing and, where there is one, the
/// remedy; it has neither a capital at the start nor a full stop at the end.
struct Error {
  enum class Kind {
    system,    ///< a system call failed; `code` is its errno
    protocol,  ///< the peer broke the protocol; the connection cannot be used any further
    timeout,   ///< a deadline passed
    closed,    ///< the peer closed the connection, or this side did
    server,    ///< the peer answered with an error reply; `code` is its errno
    limit,     ///< a limit, ours or negotiated, would be exceeded; nothing was sent
    invalid,   ///< the caller's or the peer's argument is wrong; nothing was changed
  };

  Kind kind = Kind::system;
  int code = 0;  ///< errno, positive; never 0 in an error that is returned
  std::string message;
};

template <class T>
using Result = tl::expected<T, Error>;

/// `return fail(Error::Kind::invalid, EINVAL, "…");` from any function that returns a Result.
[[nodiscard]] inline tl::unexpected<Error> fail(Error::Kind kind, int code, std::string message) {
  return tl::make_unexpected(Error{kind, code, std::move(message)});
}

}  // namespace outboard::vfio_user
