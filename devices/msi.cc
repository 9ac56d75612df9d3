#include "devices/msi.h"

#include <algorithm>

#include "vfio_user/device_description.h"

namespace outboard::devices {

Msi::Msi(std::uint32_t vectors, bool server_masks, DeviceIrqs& device, MsiRouter& router,
         std::uint16_t requester)
    : vectors_(vfio_user::kIrqMsi, vectors, server_masks, device, router, requester) {}

Result<void> Msi::set(bool enable, std::uint32_t granted, MsiMessage message, std::uint32_t mask) {
  const bool was_enabled = enabled_;
  enabled_ = enable;
  if (!enable) return was_enabled ? vectors_.disable() : Result<void>{};
  granted = std::min(granted, vectors_.count());
  // Fewer vectors than before: those beyond are given back with the rest and armed anew.
  Result<void> outcome;
  if (was_enabled && granted < granted_) outcome = vectors_.disable();
  granted_ = granted;
  auto updated = vectors_.update(0, vectors_.count(), [&](std::uint32_t vector) {
    const MsiMessage own{message.address, (message.data & ~(granted - 1)) | vector};
    return VectorState{vector < granted, (mask >> vector & 1) != 0, own};
  });
  return updated ? outcome : updated;
}

std::uint32_t Msi::pending() const {
  std::uint32_t bits = 0;
  for (std::uint32_t i = 0; i < vectors_.count(); ++i) {
    if (vectors_.pending(i)) bits |= 1U << i;
  }
  return bits;
}

}  // namespace outboard::devices
