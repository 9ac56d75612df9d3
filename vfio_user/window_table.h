#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vfio_user/result.h"
#include "vfio_user/server.h"
#include "vfio_user/unique_fd.h"
#include "vfio_user/wire.h"

namespace outboard::vfio_user {

/// An mmap(2) of a client's file; unmapped at the end of its life.
class Mapping final {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  /// Maps `size` bytes at `offset` of a file, whatever its page size is.
  static Result<Mapping> of_file(int fd, std::uint64_t offset, std::uint64_t size, bool readable,
                                 bool writable);

  [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> whole_;  // as given to munmap
  std::span<std::byte> bytes_;  // as asked for
};

/// The DMA windows of one client, sorted by address, none overlapping. Owned by the session, used
/// by the server's thread only.
class WindowTable final {
 public:
  struct Window {
    ServerWindow info;
    Mapping mapping;
    UniqueFd file;  // only of a window that is to be accessed by pread and pwrite
    std::uint64_t file_offset = 0;
  };

  WindowTable(std::uint32_t max_windows, bool require_seal)
      : max_windows_(max_windows), require_seal_(require_seal) {}

  /// DMA_MAP. Without an fd the window is reached by messages. The file must be a regular one (a
  /// memfd, or of tmpfs or hugetlbfs) and long enough. Errors carry the errno for the reply:
  /// EINVAL, EEXIST (overlap), ENOSPC (too many), EPERM (not sealed), or what mmap said.
  Result<const Window*> map(const wire::DmaMap& request, UniqueFd fd);

  /// The window that is exactly this range, or null.
  [[nodiscard]] const Window* exact(std::uint64_t address, std::uint64_t size) const;
  /// The window that holds this address, or null.
  [[nodiscard]] const Window* holding(std::uint64_t address) const;
  /// The lowest window, or null.
  [[nodiscard]] const Window* first() const { return windows_.empty() ? nullptr : &windows_[0]; }

  /// Unmaps; `window` is one of this table.
  void remove(const Window* window);

  /// See Server::translate().
  [[nodiscard]] std::span<std::byte> translate(std::uint64_t iova, std::uint64_t size,
                                               bool write) const;

 private:
  std::uint32_t max_windows_;
  bool require_seal_;
  std::vector<Window> windows_;
  mutable std::size_t last_hit_ = 0;  // index of the window of the last translation
};

}  // namespace outboard::vfio_user
