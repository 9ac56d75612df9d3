#include "devices/function_bars.h"

#include <string>
#include <utility>

namespace outboard::devices {

void FunctionBars::open(vfio_user::Region& region, std::vector<Overlay> overlays, bool map_pages,
                        int pages_lost, DeviceLink& link, IoEvents& io_events,
                        AccessCounters& counters, GuestLog& log) {
  const auto& info = registers_.info(region.index);
  if (!info) return;
  RegionPages pages;
  std::vector<AddressWindow> kept_out;
  for (const Overlay& overlay : overlays) kept_out.push_back(overlay.range);
  const bool maps = info->kind != BarInfo::Kind::io && map_pages;
  if (maps) {
    pages = RegionPages::open(region, kept_out, pages_lost, log);
  }
  RegionWindow::Shape shape{region.index, region.size, region.readable, region.writable, {}};
  for (const SharedPages& run : pages.runs())
    shape.shared.push_back({run.offset, run.bytes.size()});
  auto& bar = bars_[region.index];
  bar = std::make_unique<Bar>(*info, std::move(pages), std::move(kept_out), std::move(shape),
                              std::move(overlays), link, io_events, counters, log);
  bar->maps_pages = maps;
  if (!region.io_fds_refused.empty()) {
    log.line(Severity::warning, "stores stay messages: " + region.io_fds_refused);
  }
  if (region.io_fds.empty()) return;
  bar->window.watch_events(bar->events);
  bar->events.offer(std::exchange(region.io_fds, {}));
}

void FunctionBars::trap() {
  for (const auto& bar : bars_) {
    if (bar == nullptr) continue;
    bar->window.set_events({});
    if (bar->mapping) bar->mapping->trap();
    bar->pages = RegionPages();
  }
}

void FunctionBars::share(std::span<vfio_user::Region> regions, int pages_lost, GuestLog& log) {
  for (vfio_user::Region& region : regions) {
    if (region.index >= bars_.size() || bars_[region.index] == nullptr) continue;
    Bar& bar = *bars_[region.index];
    if (bar.maps_pages) bar.pages = RegionPages::open(region, bar.kept_out, pages_lost, log);
    if (bar.mapping) bar.mapping->share();
    bar.window.set_events(std::exchange(region.io_fds, {}));
  }
}

void FunctionBars::refresh_events() {
  for (const auto& bar : bars_) {
    if (bar != nullptr) bar->window.refresh_events();
  }
}

Result<void> FunctionBars::place(BarAllocator& allocator, Bus& bus, PageMapper& mapper,
                                 GuestLog& log) {
  if (auto placed = registers_.place(allocator); !placed) return placed;
  for (const BarInfo& info : registers_.list()) {
    Bar& bar = *bars_[info.region];
    bar.mapping.emplace(info, bar.window, bar.pages, bus, mapper, bar.events, log);
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
