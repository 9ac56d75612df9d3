// Pieces of requests that several source files of Client build.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
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

// One REGION_WRITE; what it was made from must outlive it, and it its request.
class RegionWriteMessage final {
 public:
  RegionWriteMessage(std::uint32_t region, std::uint64_t offset, std::span<const std::byte> from)
      : access_{offset, region, static_cast<std::uint32_t>(from.size())},
        body_{{{&access_, sizeof access_}, {const_cast<std::byte*>(from.data()), from.size()}}} {}
  RegionWriteMessage(const RegionWriteMessage&) = delete;
  RegionWriteMessage& operator=(const RegionWriteMessage&) = delete;

  [[nodiscard]] Connection::Request request(std::chrono::milliseconds timeout) const {
    return {.command = wire::Command::region_write,
            .body = body_,
            .fds = {},
            .timeout = timeout,
            .keep = sizeof access_,
            .poll = true};
  }

 private:
  wire::RegionAccess access_;
  std::array<iovec, 2> body_;
};

// Bytes of a DEVICE_GET_REGION_IO_FDS reply asked for at first: 128 entries of the larger layout, a
// doorbell each of many queues.
inline constexpr std::uint32_t kIoFdsRoom = sizeof(wire::RegionIoFds) + 128 * 48;

// `body` holds one wire::RegionIoFds with argsz == room; both stay the caller's.
[[nodiscard]] Connection::Request io_fds_request(const iovec& body, std::uint32_t room,
                                                 std::chrono::milliseconds timeout);

}  // namespace outboard::vfio_user
