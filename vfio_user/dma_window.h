// A piece of guest memory that the server of a device may use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace outboard::vfio_user {

// With an fd the server maps [file_offset, +size) of it; without one it reads and writes by
// message. `host` is our own view of the same bytes and serves those messages; it is empty or
// exactly `size` bytes. The client owns neither: the fd is used only during the call, `host` until
// the window is unmapped or the client closed.
struct DmaWindow {
  std::uint64_t address = 0;  // as the device sees it: guest-physical
  std::uint64_t size = 0;     // bytes
  int fd = -1;
  std::uint64_t file_offset = 0;
  bool readable = true;
  bool writable = true;
  std::span<std::byte> host;
};

}  // namespace outboard::vfio_user
