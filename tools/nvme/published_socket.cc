#include "tools/nvme/published_socket.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vfio_user/given_fds.h"
#include "vfio_user/transport.h"

namespace outboard::nvme {

using vfio_user::Error;

namespace {

vfio_user::Result<vfio_user::UniqueFd> given_socket(const std::string& name) {
  const auto refuse = [&](int code, const std::string& why) {
    return vfio_user::fail(Error::Kind::invalid, code, "socket '" + name + "': " + why);
  };
  const auto given = vfio_user::parse_given_fd(name);
  if (!given || !given->file.empty()) return refuse(EINVAL, "write fd:NUMBER or fd:NAME");
  auto fd = vfio_user::take_given_fd(given->fd);
  if (!fd) return refuse(fd.error().code, fd.error().message);
  int domain = 0;
  int type = 0;
  int listening = 0;
  socklen_t size = sizeof(int);
  if (getsockopt(fd->get(), SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) {
    return refuse(errno, "the descriptor is no socket");
  }
  getsockopt(fd->get(), SOL_SOCKET, SO_TYPE, &type, &size);
  getsockopt(fd->get(), SOL_SOCKET, SO_ACCEPTCONN, &listening, &size);
  if (domain != AF_UNIX || type != SOCK_STREAM || listening == 0) {
    return refuse(EPROTOTYPE, "the descriptor is no listening Unix stream socket");
  }
  return fd;
}

}  // namespace

vfio_user::Result<PublishedSocket> PublishedSocket::create(const std::string& path) {
  if (vfio_user::is_given_fd(path)) {
    auto fd = given_socket(path);
    if (!fd) return tl::make_unexpected(fd.error());
    return PublishedSocket(std::move(*fd), {});  // its name, if any, is another's
  }
  struct stat status {};
  const std::string draft = path + "." + std::to_string(getpid());
  if (lstat(path.c_str(), &status) == 0 || draft.size() >= sizeof(sockaddr_un::sun_path)) {
    // Something is there already, or the name has no room for a suffix: under its own name, where
    // what is in the way is judged.
    auto fd = vfio_user::listen_unix(path, 4);
    if (!fd) return tl::make_unexpected(fd.error());
    return PublishedSocket(std::move(*fd), path);
  }
  auto fd = vfio_user::listen_unix(draft, 4);
  if (!fd) {
    Error error = fd.error();
    if (const auto at = error.message.find(draft); at != std::string::npos) {
      error.message.replace(at, draft.size(), path);
    }
    return tl::make_unexpected(std::move(error));
  }
  if (rename(draft.c_str(), path.c_str()) != 0) {
    const int code = errno;
    unlink(draft.c_str());
    return vfio_user::fail(Error::Kind::system, code,
                           "socket '" + path + "': cannot be put in place: " + std::strerror(code));
  }
  return PublishedSocket(std::move(*fd), path);
}

PublishedSocket::PublishedSocket(PublishedSocket&& other) noexcept
    : fd_(std::move(other.fd_)),
      path_(std::exchange(other.path_, {})),
      removed_(std::move(other.removed_)) {}

PublishedSocket::~PublishedSocket() {
  if (!path_.empty()) unlink(path_.c_str());
}

}  // namespace outboard::nvme
