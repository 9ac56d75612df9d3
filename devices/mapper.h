// Host pages placed into guest-physical memory, so that the guest reaches them without an exit.
// Declared here, implemented by the VMM (KVM memslots).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/address.h"
#include "devices/result.h"

namespace outboard::devices {

// Names one mapping, from map() until unmap().
enum class SlotId : std::uint32_t {};

// Both members may be called from any thread, also from a vCPU inside an access.
class PageMapper {
 public:
  virtual ~PageMapper() = default;

  // Address and host span are page aligned. Fails when the range overlaps RAM or another slot, or
  // when no slot is left. With writable == false guest stores exit to the bus. The host pages stay
  // valid until unmap() has returned.
  virtual Result<SlotId> map(GuestAddress at, std::span<std::byte> host, bool writable) = 0;

  // No guest access reaches the pages through this slot once it has returned.
  virtual void unmap(SlotId slot) = 0;
};

}  // namespace outboard::devices
