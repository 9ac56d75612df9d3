// Where a kernel's unpacked payload may be kept between runs: unpacking is the longest step of a
// start from a bzImage.
#pragma once

#include <cstddef>
#include <span>

namespace outboard::boot {

// Called by load_kernel() on its own thread, for one kernel file.
class UnpackedStore {
 public:
  virtual ~UnpackedStore() = default;

  // What was kept of this kernel, or nothing. Valid until the next call. The caller checks it as it
  // checks any kernel.
  [[nodiscard]] virtual std::span<const std::byte> find() = 0;
  // Keeps `unpacked`; that it could not be is the store's own business.
  virtual void keep(std::span<const std::byte> unpacked) = 0;
};

}  // namespace outboard::boot
