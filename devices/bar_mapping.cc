#include "devices/bar_mapping.h"

#include <string>

#include "devices/host_page.h"

namespace outboard::devices {

BarMapping::BarMapping(const BarInfo& bar, BusDevice& window, const RegionPages& shared, Bus& bus,
                       PageMapper& mapper, RegionEvents& events, GuestLog& log)
    : bar_(bar),
      window_(window),
      shared_(shared),
      bus_(bus),
      mapper_(mapper),
      events_(events),
      log_(log) {}

BarMapping::~BarMapping() {
  move(std::nullopt);
}

void BarMapping::move(std::optional<std::uint64_t> base) {
  if (base == base_) return;
  events_.move(std::nullopt);
  trap();
  if (range_) bus_.unmap(*range_);
  range_.reset();
  base_ = base;
  if (!base) return;
  const Space space = bar_.kind == BarInfo::Kind::io ? Space::pio : Space::mmio;
  range_ = bus_.map(space, *base, bar_.size, window_, Priority::bar);
  if (space == Space::mmio) map_pages(*base);
  events_.move(base);
}

void BarMapping::trap() {
  for (const SlotId slot : slots_) mapper_.unmap(slot);
  slots_.clear();
}

void BarMapping::share() {
  if (base_ && bar_.kind != BarInfo::Kind::io) map_pages(*base_);
}

void BarMapping::map_pages(std::uint64_t base) {
  for (const SharedPages& run : shared_.runs()) {
    const std::uint64_t at = base + run.offset;
    if (at % host_page() != 0)
      return;  // a BAR smaller than a page, moved off page alignment: trapped
    const auto slot = mapper_.map(GuestAddress{at}, run.bytes, run.writable);
    if (slot) {
      slots_.push_back(*slot);
    } else {
      log_.line(Severity::warning, "BAR " + std::to_string(bar_.region) +
                                       ": shared pages stay trapped: " + slot.error().message);
    }
  }
}

}  // namespace outboard::devices
