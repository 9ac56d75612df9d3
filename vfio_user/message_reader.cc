#include "vfio_user/message_reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

namespace outboard::vfio_user {

namespace {

/// Holds every message of the fast paths, and a whole configuration space with its header.
constexpr std::size_t kBuffer = 8 * 1024;
/// Kept between messages; a larger payload is given back after its message.
constexpr std::size_t kKeptPayload = 64 * 1024;

}  // namespace

MessageReader::MessageReader(std::uint32_t max_size)
    : max_size_(max_size), buffer_(std::make_unique_for_overwrite<std::byte[]>(kBuffer)) {}

Result<std::optional<IncomingMessage>> MessageReader::next(Transport& transport, Reading reading) {
  if (large_received_ == 0 && payload_.capacity() > kKeptPayload) payload_ = {};
  for (;;) {
    if (large_received_ > 0) return next_large(transport);
    if (end_ - begin_ >= sizeof(wire::Header)) {
      const wire::Header header = header_at(begin_);
      if (auto good = check(header); !good) return tl::make_unexpected(std::move(good.error()));
      if (header.size > kBuffer) {
        begin_large(header);
        continue;
      }
      if (auto message = take_buffered()) return message;
    }
    auto more = fill(transport, reading);
    if (!more) return tl::make_unexpected(std::move(more.error()));
    if (!*more) return std::nullopt;
  }
}

bool MessageReader::has_buffered() const {
  if (large_received_ > 0 || end_ - begin_ < sizeof(wire::Header)) return false;
  const wire::Header header = header_at(begin_);
  return header.size <= end_ - begin_ || !check(header);
}

wire::Header MessageReader::header_at(std::size_t at) const {
  wire::Header header;
  std::memcpy(&header, buffer_.get() + at, sizeof header);
  return header;
}

std::optional<IncomingMessage> MessageReader::take_buffered() {
  const wire::Header header = header_at(begin_);
  if (header.size > end_ - begin_) return std::nullopt;
  IncomingMessage message{header,
                          {buffer_.get() + begin_ + sizeof header, header.size - sizeof header},
                          detach(begin_)};
  begin_ += header.size;
  return message;
}

/// Receives once; false when there was nothing.
Result<bool> MessageReader::fill(Transport& transport, Reading reading) {
  if (begin_ > 0) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
    for (Attached& one : attached_) one.at -= begin_;
    end_ -= begin_;
    begin_ = 0;
  }
  std::size_t want = kBuffer;
  if (reading == Reading::exactly) {
    want = end_ < sizeof(wire::Header) ? sizeof(wire::Header) : header_at(0).size;
  }
  const std::span<std::byte> into(buffer_.get() + end_, want - end_);
  auto got = transport.receive(into, reading == Reading::ahead || end_ == 0);
  if (!got) {
    Error error = std::move(got.error());
    if (error.kind == Error::Kind::closed && in_message()) {
      error.message += " in the middle of a message";
    }
    return tl::make_unexpected(std::move(error));
  }
  if (got->truncated) {
    return fail(Error::Kind::protocol, EMFILE,
                "the kernel dropped file descriptors of a message; raise the limit of open files");
  }
  if (got->would_block) return false;
  const std::size_t from = end_;
  end_ += got->bytes;
  // A receive also ends behind descriptors: there may be more then.
  dry_ = got->bytes < into.size() && got->fds.empty();
  if (!got->fds.empty()) attach(from, std::move(got->fds));
  return true;
}

void MessageReader::attach(std::size_t from, std::vector<UniqueFd> fds) {
  std::size_t last = begin_;
  while (end_ - last >= sizeof(wire::Header)) {
    const std::size_t size = header_at(last).size;
    if (size < sizeof(wire::Header) || size >= end_ - last) break;
    last += size;
  }
  if (last >= from) attached_.push_back({last, std::move(fds)});
}

std::vector<UniqueFd> MessageReader::detach(std::size_t at) {
  if (attached_.empty() || attached_.front().at != at) return {};
  std::vector<UniqueFd> fds = std::move(attached_.front().fds);
  attached_.erase(attached_.begin());
  return fds;
}

Result<void> MessageReader::check(const wire::Header& header) const {
  if (header.size < sizeof header || header.size > max_size_) {
    return fail(Error::Kind::protocol, EMSGSIZE,
                "a message header gives a size of " + std::to_string(header.size) +
                    " bytes, it must be " + std::to_string(sizeof header) + " to " +
                    std::to_string(max_size_));
  }
  const std::uint32_t type = header.flags & wire::kTypeMask;
  if (type != wire::kTypeCommand && type != wire::kTypeReply) {
    return fail(Error::Kind::protocol, EPROTO,
                "a message header gives type " + std::to_string(type) +
                    ", it must be 0 (command) or 1 (reply)");
  }
  return {};
}

// ---- Messages that do not fit the buffer --------------------------------------------------------

/// What is there of it moves out of the buffer, which it fills to the end.
void MessageReader::begin_large(const wire::Header& header) {
  large_ = header;
  large_received_ = end_ - begin_;
  large_fds_ = detach(begin_);
  payload_.resize(header.size - sizeof header);
  std::copy(buffer_.get() + begin_ + sizeof header, buffer_.get() + end_, payload_.begin());
  begin_ = end_ = 0;
  attached_.clear();
}

Result<std::optional<IncomingMessage>> MessageReader::next_large(Transport& transport) {
  while (large_received_ < large_.size) {
    const auto into = std::span(payload_).subspan(large_received_ - sizeof large_);
    auto got = transport.receive(into, false);
    if (!got) {
      Error error = std::move(got.error());
      if (error.kind == Error::Kind::closed) error.message += " in the middle of a message";
      return tl::make_unexpected(std::move(error));
    }
    if (got->would_block) return std::nullopt;
    large_received_ += got->bytes;
  }
  large_received_ = 0;
  return IncomingMessage{large_, payload_, std::exchange(large_fds_, {})};
}

}  // namespace outboard::vfio_user
