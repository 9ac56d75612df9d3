// The function's PCI configuration space: what it holds and which bits a write changes. The
// client of the socket owns addresses and the MSI-X table; here they are only kept.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "tools/nvme/spec.h"

namespace outboard::nvme {

inline constexpr u32 kMsixTableBar = 4;
inline constexpr u64 kMsixBarSize = 0x2000;
inline constexpr u64 kMsixTableOffset = 0;
inline constexpr u64 kMsixPbaOffset = 0x1000;

// Not a registered vendor: "OB" in ASCII.
inline constexpr u16 kPciVendor = 0x4f42;
inline constexpr u16 kPciDevice = 0x0001;

class ConfigSpace {
 public:
  static constexpr std::size_t kSize = 4096;

  explicit ConfigSpace(u16 vectors);

  void read(u64 offset, std::span<std::byte> data) const;

  // True when the write asks for a function-level reset.
  [[nodiscard]] bool write(u64 offset, std::span<const std::byte> data);

  // What a reset clears (PCIe 4.0 §6.6.2): everything a guest can write.
  void reset();

  // What a successor needs, and from it: the bits that a guest can write, bus mastering not among
  // them, for a client gives that back when guest memory is there.
  void save(std::span<std::byte> into) const;
  void restore(std::span<const std::byte> from);

  bool bus_master() const;  // COMMAND bit 2
  bool msix_enabled() const;
  bool pin_disabled() const;  // COMMAND bit 10
  // STATUS bit 3: the function wants its pin asserted.
  void show_pin(bool asserted);

 private:
  template <class T>
  void set(std::size_t offset, std::type_identity_t<T> value, std::type_identity_t<T> writable = 0);

  std::array<std::byte, kSize> bytes_{};
  std::array<std::byte, kSize> writable_{};
  std::array<std::byte, kSize> defaults_{};
};

}  // namespace outboard::nvme
