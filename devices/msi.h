// MSI: the capability's registers and their vectors (PCI 3.0 §6.8.1).
#pragma once

#include <cstdint>

#include "devices/vector_set.h"

namespace outboard::devices {

// Not thread-safe; the owner has a lock. The registers themselves live in the function's config
// shadow; this class is told their values.
class Msi final {
 public:
  // vectors: 1 to 32, a power of two; requester as in MsiRouter::Route.
  Msi(std::uint32_t vectors, bool server_masks, DeviceIrqs& device, MsiRouter& router,
      std::uint16_t requester = 0);

  bool enabled() const { return enabled_; }

  // granted: vectors the guest allows (2^Multiple Message Enable), mask: one bit a vector. With
  // more than one vector the low bits of the data carry the vector (§6.8.1.3). Enabling arms before
  // it returns; disabling tells the server.
  Result<void> set(bool enable, std::uint32_t granted, MsiMessage message, std::uint32_t mask);

  // The Pending Bits register.
  std::uint32_t pending() const;
  // The server is gone: nothing is sent.
  void drop() { vectors_.drop(); }
  void signal_all() const { vectors_.signal_all(); }

 private:
  VectorSet vectors_;
  bool enabled_ = false;
  std::uint32_t granted_ = 0;
};

}  // namespace outboard::devices
