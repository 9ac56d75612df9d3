// Pieces of requests that several source files of Client build.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>

#include <sys/uio.h>

#include "vfio_user/connection.h"
#include "vfio_user/dma_window.h"
#include "vfio_user/wire.h"

namespace outboard::vfio_user {

// "window 0x100000000+0x40000000".
[[nodiscard]] std::string window_text(std::uint64_t address, std::uint64_t size);

[[nodiscard]] wire::DmaMap dma_map_payload(const DmaWindow& window);

// The descriptor to send along, if the window has one; points into `window`.
[[nodiscard]] inline std::span<const int> fds_of(const DmaWindow& window) {
  return window.fd >= 0 ? std::span<const int>(&window.fd, 1) : std::span<const int>();
}

// Bytes of a DEVICE_GET_REGION_IO_FDS reply asked for at first: 64 entries of the larger layout.
inline constexpr std::uint32_t kIoFdsRoom = sizeof(wire::RegionIoFds) + 64 * 48;

// `body` holds one wire::RegionIoFds with argsz == room; both stay the caller's.
[[nodiscard]] Connection::Request io_fds_request(const iovec& body, std::uint32_t room,
                                                 std::chrono::milliseconds timeout);

}  // namespace outboard::vfio_user
