// Places BARs into the machine's address windows before the guest starts.
#pragma once

#include <cstdint>
#include <optional>

#include "devices/address.h"

namespace outboard::devices {

// Used by one thread, before boot. Each window is filled upwards, every range aligned to its size.
class BarAllocator final {
 public:
  BarAllocator(AddressWindow mmio32, AddressWindow mmio64, AddressWindow pio);

  // size is a power of two. A 64-bit range comes from the 64-bit window, and from the 32-bit one
  // when the first is full. Nothing when no window has room.
  std::optional<std::uint64_t> take_memory(std::uint64_t size, bool may_be_64bit);
  std::optional<std::uint64_t> take_ports(std::uint64_t size);

 private:
  struct Cursor {
    AddressWindow window;
    std::uint64_t used = 0;
    std::optional<std::uint64_t> take(std::uint64_t size);
  };
  Cursor mmio32_;
  Cursor mmio64_;
  Cursor pio_;
};

}  // namespace outboard::devices
