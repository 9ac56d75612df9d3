#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
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

/// Cuts a byte stream into messages of exactly header.size bytes each, whatever their id, flags or
/// error, in as many pieces as they come. One user at a time.
///
/// Reading ahead, a small message costs one receive: the reader takes what the stream has, up to a
/// small buffer, and gives the messages out one by one. Messages that wait in the buffer make no
/// descriptor readable, so whoever stops calling next() must have seen has_buffered() turn false.
///
/// Descriptors belong to a message if they came with its first byte, others are closed. Reading
/// ahead that can be told less exactly: the kernel ends a receive behind the segment that carries
/// some, so they are given to the last message that begins in that receive. Where a peer's
/// descriptors matter, read exactly.
class MessageReader final {
 public:
  enum class Reading { ahead, exactly /* not a byte behind the message, two receives each */ };

  /// `max_size` is the largest message accepted, header included.
  explicit MessageReader(std::uint32_t max_size);

  void set_max_size(std::uint32_t max_size) { max_size_ = max_size; }

  /// The next whole message, or nothing when the transport ran dry first (call again when it is
  /// readable). Errors end the stream: closed (also in the middle of a message, which the text
  /// says), protocol (size under 16 or over the limit: found before anything is allocated; a type
  /// other than command or reply; fds dropped by the kernel), system.
  Result<std::optional<IncomingMessage>> next(Transport& transport,
                                              Reading reading = Reading::ahead);

  /// True between the first and the last byte of a message.
  [[nodiscard]] bool in_message() const { return end_ > begin_ || large_received_ > 0; }
  /// next() would give out a message, or an error, with no receive.
  [[nodiscard]] bool has_buffered() const;
  /// All that the stream had is given out: another next() would find only what came since.
  [[nodiscard]] bool ran_dry() const { return dry_ && !in_message(); }

 private:
  /// Descriptors of the message that begins at `at` in the buffer.
  struct Attached {
    std::size_t at = 0;
    std::vector<UniqueFd> fds;
  };

  [[nodiscard]] wire::Header header_at(std::size_t at) const;
  [[nodiscard]] Result<void> check(const wire::Header& header) const;
  std::optional<IncomingMessage> take_buffered();
  Result<bool> fill(Transport& transport, Reading reading);
  void attach(std::size_t from, std::vector<UniqueFd> fds);
  std::vector<UniqueFd> detach(std::size_t at);
  void begin_large(const wire::Header& header);
  Result<std::optional<IncomingMessage>> next_large(Transport& transport);

  std::uint32_t max_size_;
  std::unique_ptr<std::byte[]> buffer_;
  std::size_t begin_ = 0;  // of the bytes not given out yet
  std::size_t end_ = 0;
  std::vector<Attached> attached_;  // at most two, in order
  bool dry_ = false;                // the last receive took less than there was room for

  // A message that does not fit the buffer, while it is received.
  wire::Header large_{};
  std::size_t large_received_ = 0;  // bytes of it so far, header included
  std::vector<std::byte> payload_;
  std::vector<UniqueFd> large_fds_;
};

}  // namespace outboard::vfio_user
