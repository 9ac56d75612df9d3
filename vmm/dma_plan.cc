#include "vmm/dma_plan.h"

#include <algorithm>
#include <map>
#include <set>

#include <fmt/core.h>

#include "vmm/units.h"

namespace outboard::vmm {
namespace {

constexpr std::uint64_t kLeastUnit = 2 * kMiB;
constexpr std::size_t kMaxRanges = 64;  // each costs servers a descriptor and a mapping

// [begin, end) of guest-physical addresses, which may be empty.
struct Span {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

Span overlap(Span a, Span b) {
  return {std::max(a.begin, b.begin), std::min(a.end, b.end)};
}

Span span_of(const RamWindow& window) {
  return {window.address, window.address + window.size};
}

// "All" ends beyond 2^64.
Span span_of(const DmaRange& range) {
  return {range.base, range.base + std::min(range.size, ~range.base)};
}

// What a device may do with each byte of guest memory: by offset in the whole of it, from where on;
// nothing where there is no entry.
using AccessMap = std::map<std::uint64_t, std::optional<DmaAccess>>;

AccessMap access_map(std::span<const RamWindow> ram, std::span<const DmaRange> ranges) {
  AccessMap map{{0, std::nullopt}};
  for (const RamWindow& window : ram) {
    for (const DmaRange& range : ranges) {
      const Span both = overlap(span_of(window), span_of(range));
      if (both.begin >= both.end) continue;
      const std::uint64_t from = both.begin - window.address + window.file_offset;
      map[from] = range.access;
      map.try_emplace(from + (both.end - both.begin), std::nullopt);
    }
  }
  for (auto at = std::next(map.begin()); at != map.end();) {
    at = at->second == std::prev(at)->second ? map.erase(at) : std::next(at);
  }
  return map;
}

std::optional<DmaAccess> access_at(const AccessMap& map, std::uint64_t offset) {
  return std::prev(map.upper_bound(offset))->second;
}

}  // namespace

std::uint64_t dma_unit(PageSize page_size) {
  return std::max(kLeastUnit, static_cast<std::uint64_t>(page_size));
}

std::optional<std::string> dma_fault(std::span<const DmaRange> ranges,
                                     std::span<const RamWindow> ram, std::uint64_t unit) {
  if (ranges.size() > kMaxRanges)
    return fmt::format("there are {} ranges; {} are the most", ranges.size(), kMaxRanges);
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const DmaRange& range = ranges[i];
    const std::string what = fmt::format("the range {:#x} +{:#x}", range.base, range.size);
    if (range.size == 0) return what + " is empty";
    if (range.base % unit != 0 || range.size % unit != 0) {
      return fmt::format("{} must begin and end at multiples of {}: servers map whole huge pages",
                         what, format_size(unit));
    }
    const Span span = span_of(range);
    const bool inside = std::ranges::any_of(ram, [&](const RamWindow& window) {
      const Span both = overlap(span, span_of(window));
      return both.begin == span.begin && both.end - both.begin == range.size &&
             both.end > span.begin;
    });
    if (!inside) {
      std::string have;
      for (const RamWindow& window : ram) {
        have += fmt::format("{}{:#x} +{}", have.empty() ? "" : " and ", window.address,
                            format_size(window.size));
      }
      return fmt::format("{} is not all guest memory, which is {}", what, have);
    }
    for (const DmaRange& other : ranges.first(i)) {
      const Span both = overlap(span, span_of(other));
      if (both.begin < both.end)
        return fmt::format("{} overlaps the one at {:#x}", what, other.base);
    }
  }
  return std::nullopt;
}

std::vector<FilePlan> plan_files(std::span<const RamWindow> ram,
                                 std::span<const DeviceConfig> devices, bool divisible) {
  const std::uint64_t end = ram.back().file_offset + ram.back().size;
  if (!divisible) {
    const bool readable = std::ranges::any_of(devices, [](const DeviceConfig& device) {
      return std::ranges::find(device.dma, DmaAccess::read_only, &DmaRange::access) !=
             device.dma.end();
    });
    return {{.offset = 0, .size = end, .writable = true, .read_only = readable}};
  }
  std::vector<AccessMap> maps;
  std::set<std::uint64_t> edges{0};
  for (const DeviceConfig& device : devices) {
    maps.push_back(access_map(ram, device.dma));
    for (const auto& [offset, access] : maps.back()) {
      if (offset < end) edges.insert(offset);
    }
  }
  std::vector<FilePlan> files;
  std::vector<std::optional<DmaAccess>> last;  // of each device, in the last of `files`
  for (const std::uint64_t edge : edges) {
    std::vector<std::optional<DmaAccess>> here;
    for (const AccessMap& map : maps) here.push_back(access_at(map, edge));
    if (!files.empty() && here == last) continue;
    if (!files.empty()) files.back().size = edge - files.back().offset;
    const bool writable = std::ranges::find(here, DmaAccess::read_write) != here.end();
    const bool readable = std::ranges::find(here, DmaAccess::read_only) != here.end();
    files.push_back({.offset = edge, .size = 0, .writable = writable, .read_only = readable});
    last = std::move(here);
  }
  files.back().size = end - files.back().offset;
  return files;
}

std::vector<PlannedWindow> plan_windows(std::span<const RamWindow> ram,
                                        std::span<const FilePlan> files,
                                        std::span<const DmaRange> ranges) {
  const AccessMap map = access_map(ram, ranges);
  std::vector<PlannedWindow> windows;
  for (const RamWindow& window : ram) {
    const Span all{window.file_offset, window.file_offset + window.size};
    for (std::size_t i = 0; i < files.size(); ++i) {
      const Span file{files[i].offset, files[i].offset + files[i].size};
      for (auto at = map.begin(); at != map.end(); ++at) {
        if (!at->second) continue;
        const auto next = std::next(at);
        const Span part{at->first, next == map.end() ? all.end : next->first};
        const Span here = overlap(overlap(all, file), part);
        if (here.begin >= here.end) continue;
        windows.push_back({.address = here.begin - window.file_offset + window.address,
                           .size = here.end - here.begin,
                           .access = *at->second,
                           .file = i,
                           .file_offset = here.begin - file.begin,
                           .whole_file = false});
      }
    }
  }
  for (std::size_t i = 0; i < files.size(); ++i) {
    for (const DmaAccess access : {DmaAccess::read_only, DmaAccess::read_write}) {
      std::uint64_t covered = 0;
      const auto is_here = [&](const PlannedWindow& w) {
        return w.file == i && w.access == access;
      };
      for (const PlannedWindow& w : windows) covered += is_here(w) ? w.size : 0;
      for (PlannedWindow& w : windows) w.whole_file |= is_here(w) && covered == files[i].size;
    }
  }
  return windows;
}

std::vector<vfio_user::DmaWindow> dma_windows(const GuestMemory& memory,
                                              std::span<const DmaRange> ranges) {
  std::vector<vfio_user::DmaWindow> windows;
  for (const PlannedWindow& planned : plan_windows(memory.windows(), memory.files(), ranges)) {
    vfio_user::DmaWindow dma;
    dma.address = planned.address;
    dma.size = planned.size;
    dma.writable = planned.access == DmaAccess::read_write;
    if (planned.whole_file) {
      dma.fd = dma.writable ? memory.fd(planned.file) : memory.read_only_fd(planned.file);
    }
    dma.file_offset = planned.file_offset;
    dma.host = memory.at(planned.address, planned.size);
    windows.push_back(dma);
  }
  return windows;
}

std::string dma_text(std::span<const PlannedWindow> windows) {
  std::string out;
  for (const PlannedWindow& window : windows) {
    out += fmt::format("{}{:#x} +{} {}{}", out.empty() ? "" : ", ", window.address,
                       format_size(window.size),
                       window.access == DmaAccess::read_only ? "read-only" : "read-write",
                       window.whole_file ? "" : " (by messages)");
  }
  return out.empty() ? "none" : out;
}

}  // namespace outboard::vmm
