#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "vfio_user/result.h"
#include "vfio_user/transport.h"
#include "vfio_user/wire.h"

namespace outboard::vfio_user {

/// One whole message. `payload` belongs to the reader and is valid until its next call.
struct IncomingMessage {
  wire::Header header{};
  std::span<const std::byte> payload;  ///< header.size - 16 bytes
  std::vector<UniqueFd> fds;           ///< those that came with the first byte; no others exist

  [[nodiscard]] bool is_reply() const {
    return (header.flags & wire::kTypeMask) == wire::kTypeReply;
  }
  [[nodiscard]] bool is_command() const {
    return (header.flags & wire::kTypeMask) == wire::kTypeCommand;
  }
};

/// Cuts a byte stream into messages: reads exactly header.size bytes of each, whatever its id,
/// flags or error, in as many pieces as they come, and never a byte of the next one. One user at a
/// time.
class MessageReader final {
 public:
  /// `max_size` is the largest message accepted, header included.
  explicit MessageReader(std::uint32_t max_size) : max_size_(max_size) {}

  void set_max_size(std::uint32_t max_size) { max_size_ = max_size; }

  /// The next whole message, or nothing when the transport ran dry first (call again when it is
  /// readable). Errors end the stream: closed (also in the middle of a message, which the text
  /// says), protocol (size under 16 or over the limit: found before anything is allocated; a type
  /// other than command or reply; fds dropped by the kernel), system.
  Result<std::optional<IncomingMessage>> next(Transport& transport);

  /// True between the first and the last byte of a message.
  [[nodiscard]] bool in_message() const { return received_ > 0; }

 private:
  Result<void> check_header();

  std::uint32_t max_size_;
  std::size_t received_ = 0;  // bytes of the message so far, header included
  wire::Header header_{};
  std::vector<std::byte> payload_;
  std::vector<UniqueFd> fds_;
};

}  // namespace outboard::vfio_user
