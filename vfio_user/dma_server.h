// The guest memory a server may use, and the answers to its DMA_READ and DMA_WRITE.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <shared_mutex>
#include <span>
#include <vector>

#include "vfio_user/dma_window.h"
#include "vfio_user/message_observer.h"
#include "vfio_user/message_reader.h"
#include "vfio_user/result.h"
#include "vfio_user/wire.h"

namespace outboard::vfio_user {

// Owns the table of windows of one device, and no memory. Any thread may call any member. The lock
// is held for a copy or a look-up, never for a wait: not even while a DMA_UNMAP waits for its
// reply, since the server may need memory to finish it.
class DmaServer final {
 public:
  // `max_transfer`: what this side announced as max_data_xfer_size.
  explicit DmaServer(std::uint64_t max_transfer) : max_transfer_(max_transfer) {}

  // Errors: invalid (empty, wraps, `host` of another size), EEXIST (overlaps a window), limit
  // (`max_windows` reached).
  [[nodiscard]] Result<void> add(const DmaWindow& window, std::uint32_t max_windows);
  // Forgets exactly this window; when it returns no copy touches the window any more. False if
  // there is none such.
  bool remove(std::uint64_t address, std::uint64_t size);
  [[nodiscard]] bool has(std::uint64_t address, std::uint64_t size) const;
  void clear();

  [[nodiscard]] static bool is_dma(const wire::Header& header);

  // Answers one request of the server: `reply` is the whole message, or empty when none is wanted.
  // Anything but a DMA request is answered with ENOSYS. DMA must lie wholly in windows (several
  // adjoining ones will do) that permit it and have a `host`: EFAULT, EPERM; at most `max_transfer`
  // bytes: E2BIG; descriptors, empty and malformed requests: EINVAL. The observer may be none.
  void serve(const IncomingMessage& message, std::vector<std::byte>& reply,
             MessageObserver* observer = nullptr) const;

 private:
  int answer(const IncomingMessage& message, std::vector<std::byte>& reply) const;
  int access(const IncomingMessage& message, std::vector<std::byte>& reply) const;
  // 0, or an errno; `each` is called for every piece of [address, +size) in turn, or not at all on
  // error.
  template <class Piece>
  int visit(std::uint64_t address, std::uint64_t size, bool write, Piece each) const;

  const std::uint64_t max_transfer_;
  mutable std::shared_mutex mutex_;
  std::map<std::uint64_t, DmaWindow>
      windows_;  // guarded by mutex_, by address; none overlaps another
};

}  // namespace outboard::vfio_user
