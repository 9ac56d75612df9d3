#include "vfio_user/socket_transport.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "vfio_user/wire.h"

namespace outboard::vfio_user {

namespace {

constexpr std::size_t kMaxParts = 8;
/// Room for a message of 1 MiB of data and its headers, with what the kernel counts on top.
constexpr int kBufferSize = 4 * 1024 * 1024;

using FdBuffer = std::array<char, CMSG_SPACE(wire::kMaxSocketFds * sizeof(int))>;

tl::unexpected<Error> socket_failure(const char* doing, int code) {
  if (code == EPIPE || code == ECONNRESET || code == ENOTCONN) {
    return fail(Error::Kind::closed, code, "the peer closed the connection");
  }
  return fail(Error::Kind::system, code,
              std::string("cannot ") + doing + ": " + std::system_category().message(code));
}

void attach_fds(msghdr& message, std::span<const int> fds, FdBuffer& buffer) {
  message.msg_control = buffer.data();
  message.msg_controllen = CMSG_SPACE(fds.size_bytes());
  cmsghdr* control = CMSG_FIRSTHDR(&message);
  control->cmsg_level = SOL_SOCKET;
  control->cmsg_type = SCM_RIGHTS;
  control->cmsg_len = CMSG_LEN(fds.size_bytes());
  std::memcpy(CMSG_DATA(control), fds.data(), fds.size_bytes());
}

void take_fds_of(msghdr& message, std::vector<UniqueFd>& fds) {
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr;
       control = CMSG_NXTHDR(&message, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(int));
      fds.emplace_back(fd);
    }
  }
}

/// Drops the first `count` bytes from the list.
std::span<iovec> advance(std::span<iovec> parts, std::size_t count) {
  while (!parts.empty() && count >= parts.front().iov_len) {
    count -= parts.front().iov_len;
    parts = parts.subspan(1);
  }
  if (!parts.empty()) {
    parts.front().iov_base = static_cast<char*>(parts.front().iov_base) + count;
    parts.front().iov_len -= count;
  }
  return parts;
}

/// Beyond the system's limit when privileged, else up to it.
void raise_buffer(int fd, int privileged_option, int option) {
  if (::setsockopt(fd, SOL_SOCKET, privileged_option, &kBufferSize, sizeof(kBufferSize)) != 0) {
    ::setsockopt(fd, SOL_SOCKET, option, &kBufferSize, sizeof(kBufferSize));
  }
}

}  // namespace

Result<std::unique_ptr<SocketTransport>> SocketTransport::adopt(UniqueFd fd) {
  int type = 0;
  socklen_t length = sizeof(type);
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_TYPE, &type, &length) != 0) {
    return fail(Error::Kind::invalid, errno, "the file descriptor is no socket");
  }
  sockaddr_storage peer{};
  length = sizeof(peer);
  if (type != SOCK_STREAM ||
      ::getpeername(fd.get(), reinterpret_cast<sockaddr*>(&peer), &length) != 0 ||
      peer.ss_family != AF_UNIX) {
    return fail(Error::Kind::invalid, EPROTOTYPE,
                "the file descriptor is no connected Unix stream socket");
  }
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0 ||
      ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC) != 0) {
    return socket_failure("set up a socket", errno);
  }
  raise_buffer(fd.get(), SO_SNDBUFFORCE, SO_SNDBUF);
  raise_buffer(fd.get(), SO_RCVBUFFORCE, SO_RCVBUF);
  return std::unique_ptr<SocketTransport>(new SocketTransport(std::move(fd)));
}

Result<std::pair<std::unique_ptr<SocketTransport>, UniqueFd>> SocketTransport::make_pair() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return socket_failure("make a pair of sockets", errno);
  }
  UniqueFd other(ends[1]);
  auto transport = adopt(UniqueFd(ends[0]));
  if (!transport) return tl::make_unexpected(transport.error());
  return std::make_pair(std::move(*transport), std::move(other));
}

Result<std::size_t> SocketTransport::send(std::span<const iovec> parts, std::span<const int> fds,
                                          Deadline deadline) {
  if (parts.size() > kMaxParts || fds.size() > wire::kMaxSocketFds) {
    return fail(Error::Kind::limit, E2BIG,
                "a message of " + std::to_string(parts.size()) + " parts and " +
                    std::to_string(fds.size()) + " file descriptors is beyond what a socket takes");
  }
  std::array<iovec, kMaxParts> copy{};
  std::copy(parts.begin(), parts.end(), copy.begin());
  std::span<iovec> left = advance(std::span(copy).first(parts.size()), 0);
  std::size_t sent = 0;
  while (!left.empty()) {
    msghdr message{};
    message.msg_iov = left.data();
    message.msg_iovlen = left.size();
    alignas(cmsghdr) FdBuffer control;
    if (sent == 0 && !fds.empty()) attach_fds(message, fds, control);
    const ssize_t count = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      sent += static_cast<std::size_t>(count);
      left = advance(left, static_cast<std::size_t>(count));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return socket_failure("send", errno);
    if (deadline == kNoWait) break;
    auto writable = wait_for(fd_.get(), POLLOUT, deadline);
    if (!writable) return tl::make_unexpected(writable.error());
    if (!*writable) break;
  }
  return sent;
}

Result<Received> SocketTransport::receive(std::span<std::byte> into, bool take_fds) {
  for (;;) {
    iovec part{into.data(), into.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) FdBuffer control;
    if (take_fds) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
    }
    const ssize_t count = ::recvmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (count < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) return socket_failure("receive", errno);
      Received nothing;
      nothing.would_block = true;
      return nothing;
    }
    Received received;
    received.bytes = static_cast<std::size_t>(count);
    if (take_fds) {
      take_fds_of(message, received.fds);
      received.truncated = (message.msg_flags & MSG_CTRUNC) != 0;
    }
    if (count == 0 && !into.empty()) {
      return fail(Error::Kind::closed, ECONNRESET, "the peer closed the connection");
    }
    return received;
  }
}

void SocketTransport::shutdown() {
  ::shutdown(fd_.get(), SHUT_RDWR);
}

}  // namespace outboard::vfio_user
