// One entry of GET_REGION_IO_FDS: a range of a region whose stores reach the server through a file
// descriptor.
#pragma once

#include <cstdint>
#include <optional>

#include "vfio_user/unique_fd.h"
#include "vfio_user/wire.h"

namespace outboard::vfio_user {

using wire::IoFdType;

struct IoFd {
  std::uint64_t offset = 0;  // bytes from the start of the region
  std::uint64_t size = 0;    // width of the store: 1, 2, 4 or 8, or 0 for any
  IoFdType type = IoFdType::ioeventfd;
  bool pio = false;                        // the region is in I/O-port space
  std::optional<std::uint64_t> datamatch;  // only stores of this value, if set
  UniqueFd fd;
};

}  // namespace outboard::vfio_user
