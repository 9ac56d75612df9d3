// A part of a region that may be mapped (sparse-mmap capability of GET_REGION_INFO).
#pragma once

#include <cstdint>

namespace outboard::vfio_user {

struct SparseArea {
  std::uint64_t offset = 0;  // bytes from the start of the region
  std::uint64_t size = 0;    // bytes

  friend bool operator==(const SparseArea&, const SparseArea&) = default;
};

}  // namespace outboard::vfio_user
