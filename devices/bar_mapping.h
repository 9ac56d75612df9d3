// One BAR in the guest's address space: its range on the bus, its shared pages as memslots, and its
// ioeventfds.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "devices/bar_info.h"
#include "devices/bus.h"
#include "devices/guest_log.h"
#include "devices/mapper.h"
#include "devices/region_events.h"
#include "devices/region_pages.h"

namespace outboard::devices {

// Not thread-safe; the owner has a lock. bus, mapper, window, shared and events outlive it.
class BarMapping final {
 public:
  BarMapping(const BarInfo& bar, BusDevice& window, const RegionPages& shared, Bus& bus,
             PageMapper& mapper, RegionEvents& events, GuestLog& log);
  ~BarMapping();  // unmaps
  BarMapping(const BarMapping&) = delete;
  BarMapping& operator=(const BarMapping&) = delete;

  // Where the BAR answers from now on; nothing: nowhere. The bus range is there before the first
  // slot or ioeventfd and goes after the last, so that no access falls into a gap.
  void move(std::optional<std::uint64_t> base);
  const std::optional<std::uint64_t>& base() const { return base_; }

  // Takes the shared pages out of the guest's address space: all accesses are trapped from now on.
  void trap();
  // Puts the pages there are now where the BAR is.
  void share();

 private:
  void map_pages(std::uint64_t base);

  const BarInfo bar_;
  BusDevice& window_;
  const RegionPages& shared_;
  Bus& bus_;
  PageMapper& mapper_;
  RegionEvents& events_;
  GuestLog& log_;
  std::optional<std::uint64_t> base_;
  std::optional<MapId> range_;
  std::vector<SlotId> slots_;
};

}  // namespace outboard::devices
