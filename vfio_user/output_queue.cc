#include "vfio_user/output_queue.h"

#include <cerrno>
#include <string>
#include <utility>

#include <fcntl.h>

namespace outboard::vfio_user {

Result<void> OutputQueue::send(Transport& transport, const Message& message,
                               std::span<const int> fds) {
  const auto parts = message.parts();
  std::size_t sent = 0;
  if (entries_.empty()) {
    auto done = transport.send(parts, fds, kNoWait);
    if (!done) return tl::make_unexpected(done.error());
    sent = *done;
    if (sent == message.header().size) return {};
  }
  if (message.header().size - sent > max_bytes_ - queued_bytes_) {
    return fail(Error::Kind::limit, ENOBUFS,
                "the client does not read: " + std::to_string(queued_bytes_) +
                    " bytes of replies are waiting for it");
  }
  Entry entry;
  entry.bytes.reserve(message.header().size);
  for (const auto& part : parts) {
    const auto* begin = static_cast<const std::byte*>(part.iov_base);
    entry.bytes.insert(entry.bytes.end(), begin, begin + part.iov_len);
  }
  entry.sent = sent;
  if (sent == 0) {
    for (const int fd : fds) {
      UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
      if (!copy) return fail(Error::Kind::system, errno, "cannot keep a file descriptor");
      entry.fds.push_back(std::move(copy));
    }
  }
  queued_bytes_ += entry.bytes.size() - sent;
  entries_.push_back(std::move(entry));
  return {};
}

Result<void> OutputQueue::flush(Transport& transport) {
  while (!entries_.empty()) {
    Entry& entry = entries_.front();
    const iovec part{entry.bytes.data() + entry.sent, entry.bytes.size() - entry.sent};
    std::vector<int> fds;
    for (const auto& fd : entry.fds) fds.push_back(fd.get());
    auto sent = transport.send(std::span(&part, 1), fds, kNoWait);
    if (!sent) return tl::make_unexpected(sent.error());
    if (*sent > 0) entry.fds.clear();
    entry.sent += *sent;
    queued_bytes_ -= *sent;
    if (entry.sent < entry.bytes.size()) break;
    entries_.pop_front();
  }
  return {};
}

}  // namespace outboard::vfio_user
