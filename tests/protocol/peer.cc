#include "tests/protocol/peer.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

namespace outboard::protocol_test {

using Clock = std::chrono::steady_clock;

Bytes operator+(Bytes left, const Bytes& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

Bytes text_bytes(const std::string& text, bool nul) {
  const auto* const first = reinterpret_cast<const std::byte*>(text.c_str());
  return Bytes(first, first + text.size() + (nul ? 1 : 0));
}

bool Peer::read_exactly(std::span<std::byte> into, std::vector<UniqueFd>& first, std::size_t* stray,
                        Clock::time_point deadline) {
  std::size_t done = 0;
  while (done < into.size()) {
    pollfd entry{socket_.get(), POLLIN, 0};
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0 || ::poll(&entry, 1, static_cast<int>(left)) == 0) return false;
    iovec part{into.data() + done, into.size() - done};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(253 * sizeof(int))> control;
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t got = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got <= 0) return false;
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
      for (std::size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
        if (stray == nullptr && done == 0) {
          first.emplace_back(fd);
        } else {
          const UniqueFd closed(fd);
          if (stray != nullptr) ++*stray;
        }
      }
    }
    done += static_cast<std::size_t>(got);
  }
  return true;
}

std::optional<Incoming> Peer::next(std::chrono::milliseconds patience) {
  if (!socket_) return std::nullopt;  // poll() would wait for a closed one
  const auto deadline = Clock::now() + patience;
  Incoming message;
  auto header = std::as_writable_bytes(std::span(&message.header, 1));
  if (!read_exactly(header, message.fds, nullptr, deadline)) return std::nullopt;
  if (message.header.size < sizeof message.header) return std::nullopt;
  message.payload.resize(message.header.size - sizeof message.header);
  int waiting = 0;
  ::ioctl(socket_.get(), FIONREAD, &waiting);
  message.whole = static_cast<std::size_t>(waiting) >= message.payload.size();
  std::vector<UniqueFd> none;
  if (!read_exactly(message.payload, none, &message.stray_fds, deadline)) return std::nullopt;
  return message;
}

bool Peer::send(std::span<const std::byte> bytes, std::span<const int> fds) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    iovec part{const_cast<std::byte*>(bytes.data()) + done, bytes.size() - done};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(253 * sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (done == 0 && !fds.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(fds.size_bytes());
      cmsghdr* const c = CMSG_FIRSTHDR(&message);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(fds.size_bytes());
      std::memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
    }
    const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return false;
    done += static_cast<std::size_t>(sent);
  }
  return true;
}

bool Peer::dribble(std::span<const std::byte> bytes, std::span<const int> fds) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (!send(bytes.subspan(i, 1), i == 0 ? fds : std::span<const int>())) return false;
  }
  return true;
}

Bytes Peer::reply_bytes(const wire::Header& to, const Bytes& payload, std::uint32_t flags,
                        std::uint32_t error) {
  return bytes_of(wire::Header{to.id, to.command,
                               static_cast<std::uint32_t>(sizeof(wire::Header) + payload.size()),
                               wire::kTypeReply | flags, error}) +
         payload;
}

Bytes Peer::request_bytes(std::uint16_t id, Command command, const Bytes& payload,
                          std::uint32_t flags) {
  return bytes_of(wire::Header{id, static_cast<std::uint16_t>(command),
                               static_cast<std::uint32_t>(sizeof(wire::Header) + payload.size()),
                               flags, 0}) +
         payload;
}

bool Peer::reply(const wire::Header& to, const Bytes& payload, std::span<const int> fds,
                 std::uint32_t flags, std::uint32_t error) {
  const Bytes bytes = reply_bytes(to, payload, flags, error);
  return slow_ ? dribble(bytes, fds) : send(bytes, fds);
}

bool Peer::error(const wire::Header& to, int code, const Bytes& payload) {
  return reply(to, payload, {}, wire::kError, static_cast<std::uint32_t>(code));
}

bool Peer::request(std::uint16_t id, Command command, const Bytes& payload,
                   std::span<const int> fds, std::uint32_t flags) {
  return send(request_bytes(id, command, payload, flags), fds);
}

void Peer::shut_down(int how) {
  const std::lock_guard lock(*closing_);
  ::shutdown(socket_.get(), how);
}

void Peer::close() {
  const std::lock_guard lock(*closing_);
  socket_.reset();
}

}  // namespace outboard::protocol_test
