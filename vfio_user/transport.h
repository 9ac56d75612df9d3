#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <sys/uio.h>

#include "vfio_user/result.h"
#include "vfio_user/unique_fd.h"

namespace outboard::vfio_user {

/// A point in time up to which an operation may wait. In the past: do what can be done now.
using Deadline = std::chrono::steady_clock::time_point;

inline constexpr Deadline kNoWait = Deadline::min();
inline constexpr Deadline kForever = Deadline::max();

/// What one receive brought.
struct Received {
  std::size_t bytes = 0;      ///< 0 only together with `would_block`
  std::vector<UniqueFd> fds;  ///< close-on-exec; always empty unless fds were asked for
  bool truncated = false;    ///< the kernel dropped fds (MSG_CTRUNC): the message cannot be trusted
  bool would_block = false;  ///< nothing there now
};

/// A byte stream that carries fds; under both client and server, so that tests can drive raw bytes.
/// One thread may send while another receives; each direction alone has one user at a time.
/// shutdown() may be called by any thread at any time.
class Transport {
 public:
  Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
  virtual ~Transport() = default;

  /// Sends `parts` as one message: one sendmsg in the usual case, `fds` attached to its first byte;
  /// goes on after partial sends until everything is sent or the deadline has passed. Returns the
  /// number of bytes sent: fewer than given means that the deadline passed; 0 then means that
  /// nothing was sent, fds included, and the stream is intact. Errors: closed (EPIPE, ECONNRESET),
  /// system, limit (more than wire::kMaxSocketFds fds).
  virtual Result<std::size_t> send(std::span<const iovec> parts, std::span<const int> fds,
                                   Deadline deadline) = 0;

  /// Reads once, without waiting, at most `into.size()` bytes. With `take_fds` off the kernel
  /// closes whatever fds come along. End of stream is an error of Kind::closed.
  virtual Result<Received> receive(std::span<std::byte> into, bool take_fds) = 0;

  /// To poll for POLLIN and POLLOUT; owned by the transport.
  [[nodiscard]] virtual int fd() const = 0;

  /// Ends both directions: waiters in poll wake up and see the end of the stream.
  virtual void shutdown() = 0;
};

/// Waits until `fd` has one of `events` (POLLIN, POLLOUT) or has hung up; true then, false when the
/// deadline passed. EINTR is waited through.
Result<bool> wait_for(int fd, short events, Deadline deadline);

/// Connects to a listening AF_UNIX stream socket; waits at most until the deadline when its backlog
/// is full. The error names the path and the remedy: missing, no socket, nobody listening, no
/// permission, path over 107 bytes.
Result<UniqueFd> connect_unix(const std::string& path, Deadline deadline);

/// Binds and listens. A socket file that nobody listens on is replaced; anything else in the way is
/// left alone and named in the error.
Result<UniqueFd> listen_unix(const std::string& path, int backlog);

}  // namespace outboard::vfio_user
