// The base address registers of a type 0 header (PCI 3.0 §6.2.5) as the guest reads and writes
// them. Presence and size come from the device's regions, the kind from the flag bits of its config
// space.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "devices/bar_allocator.h"
#include "devices/bar_info.h"
#include "devices/result.h"
#include "vfio_user/device_description.h"

namespace outboard::devices {

// Not thread-safe; the owner has a lock.
class BarRegisters final {
 public:
  static constexpr std::uint32_t kCount = 7;  // six BARs and the ROM, by region index

  // regions by index; config holds at least the 64-byte header. A region that is no power of two is
  // rounded up. An I/O BAR that offers pages, or is larger than a guest's port space has room for,
  // is shown as a memory BAR. Fails on a layout no guest can use: a 64-bit BAR in the last register
  // or followed by another one, a 32-bit BAR of more than 2 GiB.
  static Result<BarRegisters> create(std::span<const vfio_user::Region> regions,
                                     std::span<const std::byte> config);

  // Gives every BAR an address and remembers it as the one to come back to.
  Result<void> place(BarAllocator& allocator);
  // Back to the placed addresses, ROM decode off.
  void reset();

  // True for the registers this class answers: 0x10..0x27 and 0x30..0x33.
  static bool owns(std::uint32_t reg);
  std::uint32_t read(std::uint32_t reg, std::uint32_t size) const;
  void write(std::uint32_t reg, std::uint32_t size, std::uint32_t value);

  // Where the region answers with this COMMAND value; nothing when it does not: decoding off, no
  // address, or the all-ones value of a sizing guest.
  std::optional<std::uint64_t> decoded(std::uint32_t region, std::uint16_t command) const;

  // The BARs that exist, by rising region index; address is the register's value.
  std::vector<BarInfo> list() const;
  const std::optional<BarInfo>& info(std::uint32_t region) const { return bars_.at(region); }

 private:
  std::uint32_t register_value(std::uint32_t region) const;
  void set_register(std::uint32_t region, std::uint32_t value);
  std::optional<std::uint32_t> upper_half_of(std::uint32_t region) const;

  std::array<std::optional<BarInfo>, kCount> bars_;
  std::array<std::uint64_t, kCount> placed_{};
  bool rom_enabled_ = false;
};

}  // namespace outboard::devices
