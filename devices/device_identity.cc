#include "devices/device_identity.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <span>
#include <vector>

#include "devices/aligned_pieces.h"
#include "devices/capability_list.h"
#include "devices/pci_registers.h"

namespace outboard::devices {
namespace {

using Config = std::span<const std::byte>;

std::uint32_t load(Config config, std::size_t at, std::size_t size) {
  return at + size <= config.size() ? static_cast<std::uint32_t>(load_le(config.subspan(at, size)))
                                    : 0;
}

std::string hex(std::uint64_t value) {
  std::array<char, 24> text{};
  std::snprintf(text.data(), text.size(), "0x%llx", static_cast<unsigned long long>(value));
  return text.data();
}

std::string changed(const std::string& what, std::uint64_t before, std::uint64_t now) {
  return what + " was " + hex(before) + " and is " + hex(now);
}

struct Register {
  const char* name;
  std::uint32_t at;
  std::uint32_t size;
  std::uint32_t mask;
};

// Of a BAR the kind, not the address.
constexpr std::array<Register, 11> kRegisters = {{
    {"its vendor id", pci::kVendorId, 2, 0xffff},
    {"its device id", pci::kVendorId + 2, 2, 0xffff},
    {"its revision and class", pci::kRevisionId, 4, 0xffffffff},
    {"its header type", 0x0e, 1, 0xff},
    {"its subsystem", pci::kSubsystemVendorId, 4, 0xffffffff},
    {"the kind of BAR 0", pci::kBar0, 4, 0xf},
    {"the kind of BAR 1", pci::kBar0 + 4, 4, 0xf},
    {"the kind of BAR 2", pci::kBar0 + 8, 4, 0xf},
    {"the kind of BAR 3", pci::kBar0 + 12, 4, 0xf},
    {"the kind of BAR 4", pci::kBar0 + 16, 4, 0xf},
    {"the kind of BAR 5", pci::kBar0 + 20, 4, 0xf},
}};

// The upper half of a 64-bit BAR is an address.
bool is_upper_half(Config config, const Register& reg) {
  if (reg.at <= pci::kBar0 || reg.mask != 0xf) return false;
  const std::uint32_t lower = load(config, reg.at - 4, 4);
  return (lower & 0x7) == pci::bar::kType64;
}

std::string header_difference(Config before, Config now) {
  for (const Register& reg : kRegisters) {
    if (is_upper_half(before, reg)) continue;
    const std::uint32_t was = load(before, reg.at, reg.size) & reg.mask;
    const std::uint32_t is = load(now, reg.at, reg.size) & reg.mask;
    if (was != is) return changed(reg.name, was, is);
  }
  return {};
}

std::string capability_difference(Config before, Config now) {
  const auto was = walk_capabilities(before);
  const auto is = walk_capabilities(now);
  const auto same = [](const Capability& a, const Capability& b) {
    return a.id == b.id && a.offset == b.offset;
  };
  if (!std::ranges::equal(was, is, same)) return "its list of capabilities has changed";
  constexpr std::uint16_t kMsixId = 0x11;
  for (const Capability& capability : was) {
    if (capability.id != kMsixId) continue;
    const std::uint32_t at = capability.offset;
    const std::uint32_t sizes = pci::msix::kSizeMask;
    if ((load(before, at + 2, 2) & sizes) != (load(now, at + 2, 2) & sizes)) {
      return changed("the size of its MSI-X table", (load(before, at + 2, 2) & sizes) + 1,
                     (load(now, at + 2, 2) & sizes) + 1);
    }
    if (load(before, at + 4, 4) != load(now, at + 4, 4) ||
        load(before, at + 8, 4) != load(now, at + 8, 4)) {
      return "the place of its MSI-X table has changed";
    }
  }
  return {};
}

std::string region_difference(const vfio_user::Region& was, const vfio_user::Region& is) {
  const std::string name = "region " + std::to_string(was.index);
  if (was.size != is.size) return changed("the size of " + name, was.size, is.size);
  if (was.readable != is.readable || was.writable != is.writable) {
    return "the access to " + name + " has changed";
  }
  const auto same = [](const vfio_user::SparseArea& a, const vfio_user::SparseArea& b) {
    return a.offset == b.offset && a.size == b.size;
  };
  if (!std::ranges::equal(was.areas, is.areas, same)) {
    return "the shared areas of " + name + " have changed";
  }
  return {};
}

}  // namespace

std::string identity_difference(const vfio_user::DeviceDescription& before,
                                const vfio_user::DeviceDescription& now) {
  if (auto header = header_difference(before.config, now.config); !header.empty()) return header;
  if (before.config.size() != now.config.size()) {
    return changed("the size of its configuration space", before.config.size(), now.config.size());
  }
  if (auto list = capability_difference(before.config, now.config); !list.empty()) return list;
  if (before.regions.size() != now.regions.size()) {
    return changed("the number of its regions", before.regions.size(), now.regions.size());
  }
  for (std::size_t i = 0; i < before.regions.size(); ++i) {
    auto region = region_difference(before.regions[i], now.regions[i]);
    if (!region.empty()) return region;
  }
  if (before.irqs.size() != now.irqs.size()) {
    return changed("the number of its interrupt types", before.irqs.size(), now.irqs.size());
  }
  for (std::size_t i = 0; i < before.irqs.size(); ++i) {
    const vfio_user::Irq& was = before.irqs[i];
    const vfio_user::Irq& is = now.irqs[i];
    const std::string name = "interrupt type " + std::to_string(i);
    if (was.count != is.count) return changed("the vectors of " + name, was.count, is.count);
    if (was.eventfd != is.eventfd || was.maskable != is.maskable ||
        was.automasked != is.automasked) {
      return "the flags of " + name + " have changed";
    }
  }
  return {};
}

}  // namespace outboard::devices
