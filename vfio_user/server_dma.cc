// How a ServerSession reaches guest memory that is not mapped: by its file, or by DMA_READ and
// DMA_WRITE messages.

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <type_traits>
#include <utility>

#include <poll.h>
#include <unistd.h>

#include "vfio_user/ordered_copy.h"
#include "vfio_user/server_session.h"

namespace outboard::vfio_user {

namespace {

using std::chrono::ceil;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// Commands kept while a DMA reply is waited for; a client with more under way is broken.
constexpr std::size_t kMaxDeferred = 4096;
constexpr std::size_t kMaxDeferredBytes = 16 * 1024 * 1024;

void copy(std::span<std::byte> memory, std::span<std::byte> into) {
  std::memcpy(into.data(), memory.data(), into.size());
}
void copy(std::span<std::byte> memory, std::span<const std::byte> from) {
  copy_in_order(memory.first(from.size()), from);
}

template <class Byte>
constexpr bool kIsWrite = std::is_const_v<Byte>;

}  // namespace

int ServerSession::dma_read(std::uint64_t iova, std::span<std::byte> data) {
  return dma(iova, data);
}

int ServerSession::dma_write(std::uint64_t iova, std::span<const std::byte> data) {
  return dma(iova, data);
}

template <class Span>
int ServerSession::dma(std::uint64_t iova, Span data) {
  constexpr bool kWrite = kIsWrite<typename Span::element_type>;
  if (!data.empty() && iova + (data.size() - 1) < iova) return EFAULT;
  while (!data.empty()) {
    const auto* window = windows_.holding(iova);
    if (window == nullptr) return EFAULT;
    if (kWrite ? !window->info.writable : !window->info.readable) return EPERM;
    const std::uint64_t offset = iova - window->info.address;
    const std::size_t size = std::min<std::uint64_t>(data.size(), window->info.size - offset);
    const Span part = data.first(size);
    int error = 0;
    if (!window->info.host.empty()) {
      copy(window->info.host.subspan(offset, size), part);
    } else if (window->file) {
      error = file_io(*window, offset, part);
    } else {
      error = message_io(iova, part);
    }
    if (error != 0) return error;
    data = data.subspan(size);
    iova += size;
  }
  return 0;
}

int ServerSession::file_io(const WindowTable::Window& window, std::uint64_t offset,
                           std::span<std::byte> into) {
  auto at = static_cast<off_t>(window.file_offset + offset);
  while (!into.empty()) {
    const ssize_t count = ::pread(window.file.get(), into.data(), into.size(), at);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return count < 0 ? errno : EIO;
    into = into.subspan(static_cast<std::size_t>(count));
    at += count;
  }
  return 0;
}

int ServerSession::file_io(const WindowTable::Window& window, std::uint64_t offset,
                           std::span<const std::byte> from) {
  auto at = static_cast<off_t>(window.file_offset + offset);
  while (!from.empty()) {
    const ssize_t count = ::pwrite(window.file.get(), from.data(), from.size(), at);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return count < 0 ? errno : EIO;
    from = from.subspan(static_cast<std::size_t>(count));
    at += count;
  }
  return 0;
}

int ServerSession::message_io(std::uint64_t iova, std::span<std::byte> into) {
  while (!into.empty()) {
    const std::size_t size = std::min<std::uint64_t>(
        {into.size(), client_.max_data_xfer_size, options_.max_data_xfer_size});
    const wire::DmaAccess access{iova, size};
    const int error = exchange(Message::command(next_id_++, wire::Command::dma_read).add(access),
                               [&](std::span<const std::byte> payload) {
                                 const auto reply = parse_dma_read_reply(payload);
                                 if (!reply) return refused(reply.error());
                                 if (reply->fixed.address != iova || reply->fixed.count != size)
                                   return EPROTO;
                                 std::memcpy(into.data(), reply->data.data(), size);
                                 return 0;
                               });
    if (error != 0) return error;
    into = into.subspan(size);
    iova += size;
  }
  return 0;
}

int ServerSession::message_io(std::uint64_t iova, std::span<const std::byte> from) {
  while (!from.empty()) {
    const std::size_t size = std::min<std::uint64_t>(
        {from.size(), client_.max_data_xfer_size, options_.max_data_xfer_size});
    const wire::DmaAccess access{iova, size};
    const int error = exchange(
        Message::command(next_id_++, wire::Command::dma_write).add(access).borrow(from.first(size)),
        [&](std::span<const std::byte> payload) {
          // The protocol's text once had a reply of 12 bytes, and there are clients that answer
          // with a header alone; both mean that all was written.
          constexpr std::size_t kOldReply = 12;
          if (payload.empty() || payload.size() == kOldReply) return 0;
          const auto reply = parse_dma_write_reply(payload);
          if (!reply) return refused(reply.error());
          return reply->address == iova && reply->count == size ? 0 : EPROTO;
        });
    if (error != 0) return error;
    from = from.subspan(size);
    iova += size;
  }
  return 0;
}

int ServerSession::exchange(const Message& request,
                            const std::function<int(std::span<const std::byte>)>& take) {
  if (end_) return ENOTCONN;
  const Deadline deadline = steady_clock::now() + options_.dma_timeout;
  // On the main socket the request comes behind the replies that wait for their turn.
  if (!twin_) {
    if (const int error = flush_until(deadline); error != 0) return error;
  }
  Transport& transport = twin_ ? *twin_ : *main_;
  ++counters_.dma_messages;
  const auto sent = transport.send(request.parts(), {}, deadline);
  if (!sent) {
    end_with(sent.error());
    return ENOTCONN;
  }
  if (*sent < request.header().size) {
    if (*sent > 0) {
      end_with({Error::Kind::timeout, ETIMEDOUT, "the client took only a part of a DMA request"});
    }
    return ETIMEDOUT;
  }
  return await_reply(request.header(), deadline, take);
}

int ServerSession::await_reply(const wire::Header& request, Deadline deadline,
                               const std::function<int(std::span<const std::byte>)>& take) {
  MessageReader& reader = twin_ ? twin_reader_ : main_reader_;
  Transport& transport = twin_ ? *twin_ : *main_;
  while (!end_) {
    auto message = reader.next(transport);
    if (!message) {
      end_with(std::move(message.error()));
      break;
    }
    if (*message) {
      IncomingMessage& incoming = **message;
      if (incoming.is_command()) {
        if (twin_) {
          end_with({Error::Kind::protocol, EPROTO, "the client sent a command on the twin socket"});
        } else {
          defer(std::move(incoming));
        }
      } else if (incoming.header.id != request.id || incoming.header.command != request.command) {
        ++counters_.stray_replies;
      } else if ((incoming.header.flags & wire::kError) != 0) {
        return error_of(incoming.header);
      } else {
        return take(incoming.payload);
      }
      continue;
    }
    // A client with one thread may be waiting for the rest of a reply before it looks at this.
    std::array<pollfd, 2> entries{pollfd{transport.fd(), POLLIN, 0},
                                  pollfd{main_->fd(), POLLOUT, 0}};
    const auto left = ceil<milliseconds>(deadline - steady_clock::now()).count();
    if (left <= 0) return ETIMEDOUT;
    const int ready =
        ::poll(entries.data(), output_.empty() ? 1 : 2, static_cast<int>(std::min(left, 60'000L)));
    if (ready < 0 && errno != EINTR) return errno;
    flush();
  }
  return ENOTCONN;
}

int ServerSession::flush_until(Deadline deadline) {
  while (!output_.empty() && !end_) {
    const auto writable = wait_for(main_->fd(), POLLOUT, deadline);
    if (!writable) return writable.error().code;
    if (!*writable) return ETIMEDOUT;
    flush();
  }
  return end_ ? ENOTCONN : 0;
}

void ServerSession::defer(IncomingMessage message) {
  deferred_bytes_ += message.payload.size();
  if (deferred_.size() >= kMaxDeferred || deferred_bytes_ > kMaxDeferredBytes) {
    return end_with({Error::Kind::limit, ENOBUFS,
                     "the client sends commands without end and answers no DMA request"});
  }
  deferred_.push_back(
      {message.header, {message.payload.begin(), message.payload.end()}, std::move(message.fds)});
}

}  // namespace outboard::vfio_user
