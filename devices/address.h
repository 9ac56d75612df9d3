// Guest-physical addresses as a type of their own, so that they are never mixed with host pointers,
// file offsets or register offsets.
#pragma once

#include <compare>
#include <cstdint>

namespace outboard::devices {

// A guest-physical address. Compare and convert explicitly; arithmetic happens on raw() values.
enum class GuestAddress : std::uint64_t {};

constexpr std::uint64_t raw(GuestAddress address) {
  return static_cast<std::uint64_t>(address);
}

// A range of guest-physical (or port) addresses: [base, base + size). size 0 is the empty window.
struct AddressWindow {
  std::uint64_t base = 0;
  std::uint64_t size = 0;

  constexpr std::uint64_t end() const { return base + size; }
  constexpr bool contains(std::uint64_t at, std::uint64_t bytes) const {
    return at >= base && bytes <= size && at - base <= size - bytes;
  }
  friend constexpr bool operator==(const AddressWindow&, const AddressWindow&) = default;
};

}  // namespace outboard::devices
