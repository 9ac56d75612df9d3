// The capability lists of a configuration space: the conventional one (PCI 3.0 §6.7) and the
// extended one (PCIe 4.0 §7.6). Walks are bounded and loop-safe whatever the bytes say.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/config_space.h"

namespace outboard::devices {

struct Capability {
  std::uint16_t id = 0;
  std::uint16_t offset = 0;  // of its header
};

// In list order. A list that leaves the space, or comes back to a header it has passed, ends there.
// Empty when STATUS says there is no list.
std::vector<Capability> walk_capabilities(std::span<const std::byte> config);

// Empty when the space has no extended part, or its first header is 0 or all ones.
std::vector<Capability> walk_extended_capabilities(std::span<const std::byte> config);

// Rewrites pointers, next fields and the STATUS bit so that exactly the capabilities of kept, in
// that order, are reachable.
void link_capabilities(ConfigSpace& config, std::span<const Capability> kept);

// The same for the extended list. Where nothing of the kept starts at 0x100, the header there
// becomes a null capability that leads to the first one kept.
void link_extended_capabilities(ConfigSpace& config, std::span<const Capability> kept);

}  // namespace outboard::devices
