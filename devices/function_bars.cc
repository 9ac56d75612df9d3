#include "devices/function_bars.h"

#include <string>
#include <utility>

namespace outboard::devices {

void FunctionBars::open(const vfio_user::Region& region, std::vector<Overlay> overlays,
                        bool map_pages, vfio_user::Client& client, AccessCounters& counters,
                        GuestLog& log) {
  const auto& info = registers_.info(region.index);
  if (!info) return;
  RegionPages pages;
  if (info->kind != BarInfo::Kind::io && map_pages) {
    std::vector<AddressWindow> kept_out;
    for (const Overlay& overlay : overlays) kept_out.push_back(overlay.range);
    pages = RegionPages::open(region, kept_out, log);
  }
  const RegionWindow::Shape shape{region.index, region.size, region.readable, region.writable};
  bars_[region.index] =
      std::make_unique<Bar>(std::move(pages), shape, std::move(overlays), client, counters, log);
}

Result<void> FunctionBars::place(BarAllocator& allocator, Bus& bus, PageMapper& mapper,
                                 GuestLog& log) {
  if (auto placed = registers_.place(allocator); !placed) return placed;
  for (const BarInfo& info : registers_.list()) {
    Bar& bar = *bars_[info.region];
    bar.mapping.emplace(info, bar.window, bar.pages, bus, mapper, log);
  }
  return {};
}

void FunctionBars::close(std::uint16_t command) {
  for (std::uint32_t region = 0; region < bars_.size(); ++region) {
    Bar* const bar = bars_[region].get();
    if (bar == nullptr || !bar->mapping || registers_.decoded(region, command)) continue;
    bar->mapping->move(std::nullopt);
  }
}

void FunctionBars::move(std::uint16_t command) {
  for (std::uint32_t region = 0; region < bars_.size(); ++region) {
    Bar* const bar = bars_[region].get();
    if (bar == nullptr || !bar->mapping) continue;
    bar->mapping->move(registers_.decoded(region, command));
  }
}

std::vector<BarInfo> FunctionBars::list() const {
  auto out = registers_.list();
  for (BarInfo& bar : out) {
    if (bars_[bar.region]) bar.mapped = bars_[bar.region]->pages.total();
  }
  return out;
}

}  // namespace outboard::devices
