// The sending half of a connection: whole messages in order, without ever waiting for room in the
// socket.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

#include "vfio_user/client_counters.h"
#include "vfio_user/result.h"
#include "vfio_user/transport.h"
#include "vfio_user/unique_fd.h"
#include "vfio_user/wire.h"

namespace outboard::vfio_user {

// Every message is one sendmsg when the socket has room. What has none is queued with its fds and
// goes out by flush(), which whoever reads the connection calls when the socket is writable: a
// thread that reads is thus never stuck in a send. Any thread may call any member; the lock is held
// for a send that does not block, never longer.
class Sender final {
 public:
  enum class Outcome { sent, queued };

  // Queued bytes beyond which a posted write waits, a request is refused, a reply is not queued any
  // more.
  static constexpr std::size_t kPostedBacklog = 256 * 1024;
  static constexpr std::size_t kRequestBacklog = 8 * 1024 * 1024;
  static constexpr std::size_t kReplyBacklog = 4 * 1024 * 1024;
  // Entries of one REGION_WRITE_MULTI.
  static constexpr std::size_t kMaxMultiEntries = 200;

  explicit Sender(Transport& transport) : transport_(transport) {}

  // Sends one message; `limit` is one of the backlogs above. Errors: limit and system (nothing was
  // sent, the stream is intact), closed (it is not).
  [[nodiscard]] Result<Outcome> send(std::span<const iovec> parts, std::span<const int> fds,
                                     std::size_t limit);

  // A posted write of up to 8 bytes. While messages are queued it joins the REGION_WRITE_MULTI at
  // the end of the queue, or starts one; `id` is used only if a message had to be started.
  // `payload_limit` bounds the payload of the message.
  struct Posted {
    std::uint16_t id;
    wire::WriteMultiEntry entry;
    std::size_t payload_limit;
  };
  [[nodiscard]] Result<Outcome> post(const Posted& write, bool coalesce);

  // Sends what is queued and fits. Errors: closed.
  [[nodiscard]] Result<void> flush();

  [[nodiscard]] bool has_queued() const { return queued_.load(std::memory_order_acquire) > 0; }
  [[nodiscard]] std::size_t queued_bytes() const { return queued_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t bytes_sent() const { return sent_.load(std::memory_order_relaxed); }
  // The messages that post() has made, and their bytes.
  void add_posted_to(ClientCounters& sum) const;

 private:
  struct Message {
    std::vector<std::byte> bytes;
    std::size_t sent = 0;
    std::vector<UniqueFd> fds;
    std::size_t multi_entries = 0;  // of a REGION_WRITE_MULTI that may still grow
  };

  Result<void> flush_locked();
  Result<Outcome> send_locked(std::span<const iovec> parts, std::span<const int> fds,
                              std::size_t limit);
  Result<void> enqueue(std::span<const iovec> parts, std::size_t sent, std::span<const int> fds);

  Transport& transport_;
  std::mutex mutex_;                    // guards the sending direction of transport_ and queue_
  std::deque<Message> queue_;           // in order; only the first may be partly sent
  std::atomic<std::size_t> queued_{0};  // bytes in queue_; written under mutex_
  std::atomic<std::uint64_t> sent_{0};
  AtomicCounters::Counter posted_alone_{0};  // these four are written under mutex_
  AtomicCounters::Counter posted_alone_bytes_{0};
  AtomicCounters::Counter multi_messages_{0};
  AtomicCounters::Counter multi_bytes_{0};
};

}  // namespace outboard::vfio_user
