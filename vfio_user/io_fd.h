// One entry of GET_REGION_IO_FDS: a range of a region whose stores reach the server through a file
// descriptor.
#pragma once

#include <cstdint>
#include <optional>

#include "vfio_user/unique_fd.h"

namespace outboard::vfio_user {

enum class IoFdType : std::uint32_t {
  ioeventfd = 0,         // a store adds to the eventfd, its value is lost
  ioregionfd = 1,        // needs a kernel patch nobody ships
  shadow_ioeventfd = 2,  // as ioeventfd, and the value goes to shadow memory
};

struct IoFd {
  std::uint64_t offset = 0;  // bytes from the start of the region
  std::uint64_t size = 0;    // width of the store: 1, 2, 4 or 8, or 0 for any
  IoFdType type = IoFdType::ioeventfd;
  bool pio = false;                        // the region is in I/O-port space
  std::optional<std::uint64_t> datamatch;  // only stores of this value, if set
  UniqueFd fd;
};

}  // namespace outboard::vfio_user
