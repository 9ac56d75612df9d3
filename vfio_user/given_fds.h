#pragma once

// Descriptors that whoever started the process has left open for it, and how they are named: "fd:5"
// by number, "fd:NAME" as sd_listen_fds(3) passes them, "fd:5/device.sock" a file in an open
// directory. Used at start, before there are other threads.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vfio_user/result.h"
#include "vfio_user/transport.h"
#include "vfio_user/unique_fd.h"

namespace outboard::vfio_user {

struct GivenFd {
  int fd = -1;
  std::string file;  // in that directory; empty: the descriptor itself

  /// "fd:5" or "fd:5/file".
  [[nodiscard]] std::string text() const;
};

/// Whether it is the name of a descriptor rather than a path.
[[nodiscard]] bool is_given_fd(std::string_view text);

/// A name that has its number: "fd:5", "fd:5/file". None for everything else.
[[nodiscard]] std::optional<GivenFd> parse_given_fd(std::string_view text);

/// Takes the descriptor over: close-on-exec from now on. Errors (EBADF): it is not open. The text
/// begins with "fd:N".
[[nodiscard]] Result<UniqueFd> take_given_fd(int fd);

/// Connects to the socket `file` in the open directory `directory`, which stays the caller's; /proc
/// is not needed, and `file` alone has to fit a socket's address. The calling thread gets a working
/// directory of its own, and has the same one as before afterwards. Errors as connect_unix(), and
/// EBADF and ENOTDIR of the directory.
[[nodiscard]] Result<UniqueFd> connect_unix_at(int directory, const std::string& file,
                                               Deadline deadline);

/// What systemd, or anybody who speaks its protocol, has passed to this process.
class GivenFds final {
 public:
  /// names[i] is that of descriptor 3 + i.
  explicit GivenFds(std::vector<std::string> names = {}) : names_(std::move(names)) {}

  /// LISTEN_FDS and LISTEN_FDNAMES, when LISTEN_PID is this process; without names each is
  /// "unknown", as sd_listen_fds_with_names(3) has it. The variables are removed, and the
  /// descriptors made close-on-exec: they are not for this process's children.
  [[nodiscard]] static GivenFds from_environment();

  /// The descriptor that `text` names. It is made close-on-exec if it is open. Errors (EINVAL): no
  /// such name, or several; a number below 3 or none.
  [[nodiscard]] Result<GivenFd> find(std::string_view text) const;

 private:
  std::vector<std::string> names_;
};

}  // namespace outboard::vfio_user
