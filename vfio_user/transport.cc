#include "vfio_user/transport.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

namespace outboard::vfio_user {

namespace {

using std::chrono::ceil;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

std::string errno_text(int code) {
  return std::system_category().message(code);
}

/// Milliseconds for poll(2): rounded up, so that a wait does not end before its deadline.
int poll_timeout(Deadline deadline) {
  if (deadline == kForever) return -1;
  if (deadline == kNoWait) return 0;
  const auto now = steady_clock::now();
  if (deadline <= now) return 0;
  return static_cast<int>(
      std::min<std::int64_t>(ceil<milliseconds>(deadline - now).count(), 24 * 3600 * 1000));
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  constexpr std::size_t kMaxPath = sizeof(address.sun_path) - 1;
  if (path.empty()) return fail(Error::Kind::invalid, EINVAL, "the socket path is empty");
  if (path.size() > kMaxPath) {
    return fail(Error::Kind::invalid, ENAMETOOLONG,
                "socket '" + path + "': the path has " + std::to_string(path.size()) +
                    " bytes, a Unix socket takes " + std::to_string(kMaxPath) +
                    "; use a shorter directory");
  }
  if (path.find('\0') != std::string::npos) {
    return fail(Error::Kind::invalid, EINVAL, "the socket path has a NUL byte in it");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<UniqueFd> stream_socket() {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) {
    const int code = errno;
    return fail(Error::Kind::system, code, "cannot make a socket: " + errno_text(code));
  }
  return fd;
}

tl::unexpected<Error> connect_failure(const std::string& path, int code) {
  const std::string what = "socket '" + path + "': ";
  struct stat status {};
  switch (code) {
    case ENOENT:
      return fail(Error::Kind::system, code,
                  what + "it does not exist; start the device server first, or correct the path");
    case ECONNREFUSED:
      if (::stat(path.c_str(), &status) == 0 && !S_ISSOCK(status.st_mode)) {
        return fail(Error::Kind::invalid, ENOTSOCK,
                    what + (S_ISDIR(status.st_mode) ? "this is a directory" : "this is a file") +
                        ", not a socket; give the socket of the device server");
      }
      return fail(Error::Kind::system, code,
                  what + "nobody listens there; the device server has ended: start it again");
    case EACCES:
      return fail(Error::Kind::system, code,
                  what +
                      "permission denied; it takes write permission on the socket and search "
                      "permission on its directories");
    case EPROTOTYPE:
      return fail(Error::Kind::invalid, code,
                  what + "it is no stream socket; vfio-user needs a server of SOCK_STREAM");
    case EAGAIN:
    case EINPROGRESS:
      return fail(Error::Kind::timeout, ETIMEDOUT,
                  what + "the server accepts no connection; it may be serving another client");
    default:
      return fail(Error::Kind::system, code, what + "cannot connect: " + errno_text(code));
  }
}

/// A blocking connect waits for room in the backlog as long as SO_SNDTIMEO says; there is no event
/// to poll for on an AF_UNIX socket that is not connected.
Result<void> set_send_timeout(int fd, Deadline deadline) {
  timeval timeout{};
  if (deadline != kForever) {
    const int left = std::max(poll_timeout(deadline), 1);  // 0 would mean forever
    timeout.tv_sec = left / 1000;
    timeout.tv_usec = (left % 1000) * 1000;
  }
  if (::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) != 0) {
    const int code = errno;
    return fail(Error::Kind::system, code, "cannot set a socket's timeout: " + errno_text(code));
  }
  return {};
}

bool somebody_listens(const sockaddr_un& address) {
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return !probe ||
         ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) ==
             0 ||
         errno != ECONNREFUSED;
}

}  // namespace

Result<bool> wait_for(int fd, short events, Deadline deadline) {
  for (;;) {
    pollfd entry{fd, events, 0};
    const int ready = ::poll(&entry, 1, poll_timeout(deadline));
    if (ready > 0) return true;
    if (ready == 0) {
      if (steady_clock::now() >= deadline) return false;
      continue;
    }
    const int code = errno;
    if (code != EINTR) {
      return fail(Error::Kind::system, code, "cannot poll a socket: " + errno_text(code));
    }
  }
}

Result<UniqueFd> connect_unix(const std::string& path, Deadline deadline) {
  auto address = address_of(path);
  if (!address) return tl::make_unexpected(address.error());
  auto fd = stream_socket();
  if (!fd) return fd;
  for (;;) {
    if (auto set = set_send_timeout(fd->get(), deadline); !set) {
      return tl::make_unexpected(set.error());
    }
    if (::connect(fd->get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) == 0) {
      break;
    }
    if (errno != EINTR) return connect_failure(path, errno);
    if (steady_clock::now() >= deadline) return connect_failure(path, EAGAIN);
  }
  if (auto set = set_send_timeout(fd->get(), kForever); !set) {
    return tl::make_unexpected(set.error());
  }
  return fd;
}

Result<UniqueFd> listen_unix(const std::string& path, int backlog) {
  auto address = address_of(path);
  if (!address) return tl::make_unexpected(address.error());
  auto fd = stream_socket();
  if (!fd) return fd;
  const std::string what = "socket '" + path + "': ";
  const auto* raw = reinterpret_cast<const sockaddr*>(&*address);
  if (::bind(fd->get(), raw, sizeof(*address)) != 0) {
    int code = errno;
    struct stat status {};
    if (code == EADDRINUSE && ::lstat(path.c_str(), &status) == 0) {
      if (!S_ISSOCK(status.st_mode)) {
        return fail(Error::Kind::invalid, EEXIST,
                    what + "a file that is no socket is in the way; choose another path");
      }
      if (somebody_listens(*address)) {
        return fail(Error::Kind::system, EADDRINUSE,
                    what + "another server listens there; end it, or choose another path");
      }
      ::unlink(path.c_str());
      code = ::bind(fd->get(), raw, sizeof(*address)) == 0 ? 0 : errno;
    }
    if (code == ENOENT || code == ENOTDIR) {
      return fail(Error::Kind::system, code,
                  what + "its directory does not exist; make it, or choose another path");
    }
    if (code != 0) {
      return fail(Error::Kind::system, code, what + "cannot bind: " + errno_text(code));
    }
  }
  if (::listen(fd->get(), backlog) != 0) {
    const int code = errno;
    ::unlink(path.c_str());
    return fail(Error::Kind::system, code, what + "cannot listen: " + errno_text(code));
  }
  return fd;
}

}  // namespace outboard::vfio_user
