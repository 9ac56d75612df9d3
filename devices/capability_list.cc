#include "devices/capability_list.h"

#include <algorithm>

#include "devices/aligned_pieces.h"
#include "devices/pci_registers.h"

namespace outboard::devices {
namespace {

std::uint32_t load(std::span<const std::byte> config, std::size_t at, std::size_t size) {
  return static_cast<std::uint32_t>(load_le(config.subspan(at, size)));
}

bool passed(std::span<const Capability> list, std::uint32_t offset) {
  return std::ranges::any_of(list, [&](const Capability& entry) { return entry.offset == offset; });
}

constexpr std::uint32_t kExtendedNext = 20;  // bits 31:20 of the header

}  // namespace

std::vector<Capability> walk_capabilities(std::span<const std::byte> config) {
  std::vector<Capability> out;
  if (config.size() < ConfigSpace::kConventional) return out;
  if ((load(config, pci::kStatus, 2) & pci::status::kCapabilityList) == 0) return out;
  std::uint32_t at = load(config, pci::kCapabilities, 1) & 0xfc;
  while (at >= pci::kHeaderEnd && !passed(out, at)) {
    const auto id = static_cast<std::uint16_t>(load(config, at, 1));
    if (id == 0xff) break;  // no device behind these bytes
    out.push_back({id, static_cast<std::uint16_t>(at)});
    at = load(config, at + pci::capability::kNext, 1) & 0xfc;
  }
  return out;
}

std::vector<Capability> walk_extended_capabilities(std::span<const std::byte> config) {
  std::vector<Capability> out;
  if (config.size() < ConfigSpace::kExtended) return out;
  std::uint32_t at = pci::extended::kFirst;
  while (at >= pci::extended::kFirst && at + 4 <= config.size() && !passed(out, at)) {
    const std::uint32_t header = load(config, at, 4);
    if (header == 0 || header == 0xffffffff) break;
    out.push_back({static_cast<std::uint16_t>(header), static_cast<std::uint16_t>(at)});
    at = (header >> kExtendedNext) & 0xffc;
  }
  return out;
}

void link_capabilities(ConfigSpace& config, std::span<const Capability> kept) {
  std::uint32_t link = pci::kCapabilities;
  for (const Capability& entry : kept) {
    config.set(link, 1, entry.offset);
    link = entry.offset + pci::capability::kNext;
  }
  config.set(link, 1, 0);
  const std::uint32_t status = config.read(pci::kStatus, 2);
  config.set(pci::kStatus, 2,
             kept.empty() ? status & ~std::uint32_t{pci::status::kCapabilityList}
                          : status | pci::status::kCapabilityList);
}

void link_extended_capabilities(ConfigSpace& config, std::span<const Capability> kept) {
  if (config.size() < ConfigSpace::kExtended) return;
  const auto relink = [&](std::uint32_t at, std::uint32_t next) {
    const std::uint32_t header = config.read(at, 4) & ((1U << kExtendedNext) - 1);
    config.set(at, 4, header | (next << kExtendedNext));
  };
  std::uint32_t link = pci::extended::kFirst;
  if (kept.empty() || kept.front().offset != link) config.set(link, 4, 0);
  for (const Capability& entry : kept) {
    if (entry.offset != link) relink(link, entry.offset);
    link = entry.offset;
  }
  relink(link, 0);
}

}  // namespace outboard::devices
