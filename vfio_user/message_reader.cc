#include "vfio_user/message_reader.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

namespace outboard::vfio_user {

namespace {

/// Kept between messages; a larger buffer is given back after its message.
constexpr std::size_t kKeptBuffer = 64 * 1024;

}  // namespace

Result<std::optional<IncomingMessage>> MessageReader::next(Transport& transport) {
  if (received_ == 0) {
    fds_.clear();
    if (payload_.capacity() > kKeptBuffer) payload_ = {};
  }
  while (received_ < sizeof(header_) || received_ < header_.size) {
    const bool in_header = received_ < sizeof(header_);
    const std::span<std::byte> into =
        in_header ? std::as_writable_bytes(std::span(&header_, 1)).subspan(received_)
                  : std::span(payload_).subspan(received_ - sizeof(header_));
    auto got = transport.receive(into, received_ == 0);
    if (!got) {
      Error error = std::move(got.error());
      if (error.kind == Error::Kind::closed && received_ > 0) {
        error.message += " in the middle of a message";
      }
      return tl::make_unexpected(std::move(error));
    }
    if (got->truncated) {
      return fail(
          Error::Kind::protocol, EMFILE,
          "the kernel dropped file descriptors of a message; raise the limit of open files");
    }
    if (got->would_block) return std::nullopt;
    if (received_ == 0) fds_ = std::move(got->fds);
    received_ += got->bytes;
    if (in_header && received_ == sizeof(header_)) {
      if (auto checked = check_header(); !checked) return tl::make_unexpected(checked.error());
      payload_.resize(header_.size - sizeof(header_));
    }
  }
  received_ = 0;
  return IncomingMessage{header_, payload_, std::exchange(fds_, {})};
}

Result<void> MessageReader::check_header() {
  if (header_.size < sizeof(header_) || header_.size > max_size_) {
    return fail(Error::Kind::protocol, EMSGSIZE,
                "a message header gives a size of " + std::to_string(header_.size) +
                    " bytes, it must be " + std::to_string(sizeof(header_)) + " to " +
                    std::to_string(max_size_));
  }
  const std::uint32_t type = header_.flags & wire::kTypeMask;
  if (type != wire::kTypeCommand && type != wire::kTypeReply) {
    return fail(Error::Kind::protocol, EPROTO,
                "a message header gives type " + std::to_string(type) +
                    ", it must be 0 (command) or 1 (reply)");
  }
  return {};
}

}  // namespace outboard::vfio_user
