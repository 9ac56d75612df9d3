#pragma once

#include <cstddef>
#include <deque>
#include <span>
#include <vector>

#include "vfio_user/codec.h"
#include "vfio_user/result.h"
#include "vfio_user/transport.h"
#include "vfio_user/unique_fd.h"

namespace outboard::vfio_user {

/// Sends messages without ever waiting: what the socket does not take is kept, in order, up to a
/// bound. Used by the server's thread only.
class OutputQueue final {
 public:
  explicit OutputQueue(std::size_t max_bytes) : max_bytes_(max_bytes) {}

  /// Sends now, or keeps a copy of the message and of its fds. Error of Kind::limit when the bound
  /// is passed: then a part of the message may be on its way and the connection has to end.
  Result<void> send(Transport& transport, const Message& message, std::span<const int> fds);

  /// Sends of what is kept as much as the socket takes.
  Result<void> flush(Transport& transport);

  [[nodiscard]] bool empty() const { return entries_.empty(); }

 private:
  struct Entry {
    std::vector<std::byte> bytes;
    std::size_t sent = 0;
    std::vector<UniqueFd> fds;  // until the first byte is sent
  };

  std::size_t max_bytes_;
  std::size_t queued_bytes_ = 0;
  std::deque<Entry> entries_;
};

}  // namespace outboard::vfio_user
