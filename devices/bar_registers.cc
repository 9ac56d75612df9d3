#include "devices/bar_registers.h"

#include <algorithm>
#include <bit>
#include <string>

#include "devices/aligned_pieces.h"
#include "devices/pci_registers.h"

namespace outboard::devices {
namespace {

constexpr std::uint32_t kRom = vfio_user::kRegionRom;
constexpr std::uint32_t kLastBar = 5;
constexpr std::uint64_t kLargestIo = 4096;
constexpr std::uint64_t kLargest32 = 1ULL << 31;
constexpr std::uint64_t kLargest64 = 1ULL << 62;
constexpr std::uint64_t kSmallestIo = 4;       // §6.2.5.1
constexpr std::uint64_t kSmallestMemory = 16;  // §6.2.5.1
constexpr std::uint64_t kSmallestRom = 2048;   // §6.2.5.2: bits 10:1 reserved

constexpr std::uint32_t register_of(std::uint32_t region) {
  return region == kRom ? pci::kRomBar : pci::kBar0 + 4 * region;
}

constexpr std::uint64_t smallest(BarInfo::Kind kind) {
  switch (kind) {
    case BarInfo::Kind::io:
      return kSmallestIo;
    case BarInfo::Kind::rom:
      return kSmallestRom;
    default:
      return kSmallestMemory;
  }
}

std::string bar_name(std::uint32_t region) {
  return region == kRom ? "the ROM BAR" : "BAR " + std::to_string(region);
}

BarInfo::Kind kind_of(const vfio_user::Region& region, std::uint32_t flags) {
  if (region.index == kRom) return BarInfo::Kind::rom;
  if ((flags & pci::bar::kIo) != 0) {
    const bool ports = !region.mappable && region.size <= kLargestIo;
    return ports ? BarInfo::Kind::io : BarInfo::Kind::memory32;
  }
  return (flags & pci::bar::kTypeMask) == pci::bar::kType64 ? BarInfo::Kind::memory64
                                                            : BarInfo::Kind::memory32;
}

}  // namespace

Result<BarRegisters> BarRegisters::create(std::span<const vfio_user::Region> regions,
                                          std::span<const std::byte> config) {
  BarRegisters out;
  for (const vfio_user::Region& region : regions) {
    if (region.index >= kCount || region.size == 0) continue;
    const std::uint32_t reg = register_of(region.index);
    if (config.size() < pci::kHeaderEnd) return failure("the config space ends inside its header");
    const auto flags = static_cast<std::uint32_t>(load_le(config.subspan(reg, 4)));
    BarInfo bar{.region = region.index};
    bar.kind = kind_of(region, flags);
    const bool memory = bar.kind == BarInfo::Kind::memory32 || bar.kind == BarInfo::Kind::memory64;
    bar.prefetchable =
        memory && (flags & (pci::bar::kIo | pci::bar::kPrefetchable)) == pci::bar::kPrefetchable;
    const std::uint64_t limit = bar.kind == BarInfo::Kind::memory64 ? kLargest64 : kLargest32;
    if (region.size > limit) {
      return failure(bar_name(region.index) + " has " + std::to_string(region.size) +
                     " bytes, more than its kind of BAR can address");
    }
    bar.size = std::bit_ceil(std::max(region.size, smallest(bar.kind)));
    if (bar.kind == BarInfo::Kind::memory64 && region.index == kLastBar) {
      return failure("BAR 5 says it is 64 bits wide, and there is no register for its upper half");
    }
    if (const auto lower = out.upper_half_of(region.index)) {
      return failure(bar_name(region.index) + " has a region of its own and is the upper half of " +
                     "the 64-bit BAR " + std::to_string(*lower));
    }
    out.bars_[region.index] = bar;
  }
  return out;
}

// Largest first within each window leaves no holes: every size is a power of two.
Result<void> BarRegisters::place(BarAllocator& allocator) {
  std::vector<BarInfo*> order;
  for (auto& bar : bars_) {
    if (bar) order.push_back(&*bar);
  }
  std::ranges::stable_sort(order,
                           [](const BarInfo* a, const BarInfo* b) { return a->size > b->size; });
  for (BarInfo* const bar : order) {
    // A page each: two devices never share one, and a sparse area can become a memslot.
    const std::uint64_t room = std::max<std::uint64_t>(bar->size, 4096);
    const auto at = bar->kind == BarInfo::Kind::io
                        ? allocator.take_ports(bar->size)
                        : allocator.take_memory(room, bar->kind == BarInfo::Kind::memory64);
    if (!at) {
      return failure("no room for " + bar_name(bar->region) + " of " + std::to_string(bar->size) +
                     " bytes in the machine's " +
                     (bar->kind == BarInfo::Kind::io ? "port" : "memory") + " window");
    }
    bar->address = placed_[bar->region] = *at;
  }
  return {};
}

void BarRegisters::reset() {
  rom_enabled_ = false;
  for (auto& bar : bars_) {
    if (bar) bar->address = placed_[bar->region];
  }
}

bool BarRegisters::owns(std::uint32_t reg) {
  return (reg >= pci::kBar0 && reg < pci::kCardbusCis) ||
         (reg >= pci::kRomBar && reg < pci::kCapabilities);
}

std::uint32_t BarRegisters::read(std::uint32_t reg, std::uint32_t size) const {
  const std::uint32_t region = reg >= pci::kRomBar ? kRom : (reg - pci::kBar0) / 4;
  const std::uint32_t value = register_value(region) >> (8 * (reg % 4));
  return size >= 4 ? value : value & ((1U << (8 * size)) - 1);
}

void BarRegisters::write(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
  const std::uint32_t region = reg >= pci::kRomBar ? kRom : (reg - pci::kBar0) / 4;
  const std::uint32_t shift = 8 * (reg % 4);
  const std::uint32_t mask = (size >= 4 ? 0xffffffff : (1U << (8 * size)) - 1) << shift;
  set_register(region, (register_value(region) & ~mask) | ((value << shift) & mask));
}

std::optional<std::uint64_t> BarRegisters::decoded(std::uint32_t region,
                                                   std::uint16_t command) const {
  const auto& bar = bars_.at(region);
  if (!bar || bar->address == 0) return std::nullopt;
  const bool io = bar->kind == BarInfo::Kind::io;
  if ((command & (io ? pci::command::kIo : pci::command::kMemory)) == 0) return std::nullopt;
  if (bar->kind == BarInfo::Kind::rom && !rom_enabled_) return std::nullopt;
  // The last naturally aligned range of the space is what a guest that sizes the BAR writes.
  const std::uint64_t last = bar->kind == BarInfo::Kind::memory64 ? ~0ULL
                             : io                                 ? 0xffffULL
                                                                  : 0xffffffffULL;
  const std::uint64_t sizing = last - (bar->size - 1);
  if (bar->address >= sizing) return std::nullopt;
  return bar->address;
}

std::vector<BarInfo> BarRegisters::list() const {
  std::vector<BarInfo> out;
  for (const auto& bar : bars_) {
    if (bar) out.push_back(*bar);
  }
  return out;
}

std::optional<std::uint32_t> BarRegisters::upper_half_of(std::uint32_t region) const {
  if (region == 0 || region > kLastBar) return std::nullopt;
  const auto& below = bars_[region - 1];
  if (below && below->kind == BarInfo::Kind::memory64) return region - 1;
  return std::nullopt;
}

std::uint32_t BarRegisters::register_value(std::uint32_t region) const {
  if (const auto lower = upper_half_of(region)) {
    return static_cast<std::uint32_t>(bars_[*lower]->address >> 32);
  }
  const auto& bar = bars_[region];
  if (!bar) return 0;
  const auto base = static_cast<std::uint32_t>(bar->address);
  const std::uint32_t prefetch = bar->prefetchable ? pci::bar::kPrefetchable : 0;
  switch (bar->kind) {
    case BarInfo::Kind::io:
      return base | pci::bar::kIo;
    case BarInfo::Kind::memory32:
      return base | prefetch;
    case BarInfo::Kind::memory64:
      return base | pci::bar::kType64 | prefetch;
    case BarInfo::Kind::rom:
      return base | (rom_enabled_ ? pci::bar::kRomEnable : 0);
  }
  return 0;
}

void BarRegisters::set_register(std::uint32_t region, std::uint32_t value) {
  if (const auto lower = upper_half_of(region)) {
    BarInfo& bar = *bars_[*lower];
    const std::uint64_t address = (std::uint64_t{value} << 32) | (bar.address & 0xffffffff);
    bar.address = address & ~(bar.size - 1);
    return;
  }
  auto& bar = bars_[region];
  if (!bar) return;
  if (bar->kind == BarInfo::Kind::rom) rom_enabled_ = (value & pci::bar::kRomEnable) != 0;
  const std::uint64_t high = bar->kind == BarInfo::Kind::memory64 ? bar->address >> 32 << 32 : 0;
  bar->address = (high | value) & ~(bar->size - 1);
}

}  // namespace outboard::devices
