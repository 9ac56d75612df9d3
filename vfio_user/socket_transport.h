#pragma once

#include <memory>
#include <utility>

#include "vfio_user/transport.h"

namespace outboard::vfio_user {

/// Transport over a connected AF_UNIX stream socket, which it owns, makes non-blocking and gives
/// large buffers (peers in the field read a body with a single recv, so a message should fit).
class SocketTransport final : public Transport {
 public:
  /// Errors: invalid (ENOTSOCK, EPROTOTYPE) when `fd` is no connected stream socket.
  static Result<std::unique_ptr<SocketTransport>> adopt(UniqueFd fd);

  /// Two transports connected to each other, for tests and for the twin socket.
  static Result<std::pair<std::unique_ptr<SocketTransport>, UniqueFd>> make_pair();

  Result<std::size_t> send(std::span<const iovec> parts, std::span<const int> fds,
                           Deadline deadline) override;
  Result<Received> receive(std::span<std::byte> into, bool take_fds) override;
  [[nodiscard]] int fd() const override { return fd_.get(); }
  void shutdown() override;

 private:
  explicit SocketTransport(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

}  // namespace outboard::vfio_user
