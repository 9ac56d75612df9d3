// A transport without a socket: bytes come out of a queue that the target fills. No system call but
// one poll, which finds it always ready.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <concepts>
#include <cstring>
#include <deque>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include <sys/eventfd.h>

#include "vfio_user/transport.h"
#include "vfio_user/wire.h"

namespace outboard::fuzz {

class MemoryTransport : public vfio_user::Transport {
 public:
  // After so many looks in a row that found nothing the peer hangs up: nobody waits in vain.
  static constexpr int kPatience = 6;

  vfio_user::Result<std::size_t> send(std::span<const iovec> parts, std::span<const int> fds,
                                      vfio_user::Deadline) override {
    if (closed_) return vfio_user::fail(vfio_user::Error::Kind::closed, EPIPE, "closed");
    const std::lock_guard lock(mutex_);
    std::vector<std::byte> bytes;
    for (const iovec& part : parts) {
      const auto* const from = static_cast<const std::byte*>(part.iov_base);
      bytes.insert(bytes.end(), from, from + part.iov_len);
    }
    sent(bytes, fds.size());
    return bytes.size();
  }

  vfio_user::Result<vfio_user::Received> receive(std::span<std::byte> into,
                                                 bool take_fds) override {
    const std::lock_guard lock(mutex_);
    if (queue_.empty()) wanted();
    if (queue_.empty() && ++misses_ >= kPatience) closed_ = true;
    if (queue_.empty() && closed_) {
      return vfio_user::fail(vfio_user::Error::Kind::closed, ECONNRESET, "the peer hung up");
    }
    vfio_user::Received out;
    out.would_block = queue_.empty();
    while (!queue_.empty() && out.bytes < into.size()) {
      Piece& piece = queue_.front();
      if (!piece.fds.empty() && out.bytes > 0) break;  // as the kernel does
      const std::size_t count = std::min({into.size() - out.bytes, piece.bytes.size() - piece.given,
                                          at_once_ - out.bytes % at_once_});
      std::memcpy(into.data() + out.bytes, piece.bytes.data() + piece.given, count);
      out.bytes += count;
      piece.given += count;
      misses_ = 0;
      auto fds = std::exchange(piece.fds, {});
      const bool carried = !fds.empty();
      if (take_fds) out.fds = std::move(fds);
      if (piece.given == piece.bytes.size()) queue_.pop_front();
      if (carried || out.bytes >= at_once_) break;
    }
    return out;
  }

  int fd() const override { return ready_.get(); }
  void shutdown() override { closed_ = true; }

 protected:
  // The other end's part: from whichever thread sends or reads, one call at a time.

  // What the other end sent as one message.
  virtual void sent(std::span<const std::byte> bytes, std::size_t fds) = 0;
  // Somebody reads, and there is nothing: push() now, hang_up(), or let them find nothing.
  virtual void wanted() {}

  void push(std::span<const std::byte> bytes, std::vector<vfio_user::UniqueFd> fds = {}) {
    if (!bytes.empty()) queue_.push_back({{bytes.begin(), bytes.end()}, 0, std::move(fds)});
  }
  void hang_up() { closed_ = true; }
  void set_at_once(std::size_t bytes) { at_once_ = bytes; }  // one receive brings no more

 private:
  struct Piece {
    std::vector<std::byte> bytes;
    std::size_t given;
    std::vector<vfio_user::UniqueFd> fds;
  };

  const vfio_user::UniqueFd ready_{::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)};
  std::mutex mutex_;                            // held while the other end has its say
  std::deque<Piece> queue_;                     // under mutex_
  std::size_t at_once_ = std::size_t{1} << 30;  // under mutex_ once it is in use
  int misses_ = 0;                              // under mutex_
  std::atomic<bool> closed_ = false;            // any thread
};

// A structure's bytes; what is bytes already goes to the other one.
template <vfio_user::wire::Struct T>
requires(!std::convertible_to<const T&, std::span<const std::byte>>) void append(
    std::vector<std::byte>& to, const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  to.insert(to.end(), bytes.begin(), bytes.end());
}
inline void append(std::vector<std::byte>& to, std::span<const std::byte> bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

}  // namespace outboard::fuzz
