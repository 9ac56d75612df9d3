#include "tools/nvme/published_socket.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vfio_user/transport.h"

namespace outboard::nvme {

using vfio_user::Error;

vfio_user::Result<PublishedSocket> PublishedSocket::create(const std::string& path) {
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
    : fd_(std::move(other.fd_)), path_(std::exchange(other.path_, {})) {}

PublishedSocket::~PublishedSocket() {
  if (!path_.empty()) unlink(path_.c_str());
}

}  // namespace outboard::nvme
