// The BARs of one vfio-user function: registers, shared pages, trapped accesses and places in the
// guest's address space.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "devices/bar_mapping.h"
#include "devices/bar_registers.h"
#include "devices/region_pages.h"
#include "devices/region_window.h"

namespace outboard::devices {

// Not thread-safe; the owner has a lock. Accesses of the guest go to the windows, which need none.
class FunctionBars final {
 public:
  explicit FunctionBars(const BarRegisters& registers) : registers_(registers) {}

  const BarRegisters& registers() const { return registers_; }

  // Opens the region's pages and its window, once for each BAR there is. overlays: what answers in
  // place of the server; map_pages: shared pages may become slots; pages_lost: an eventfd, see
  // RegionPages. The region's files and pages_lost outlive this object; its ioeventfds are taken.
  void open(vfio_user::Region& region, std::vector<Overlay> overlays, bool map_pages,
            int pages_lost, DeviceLink& link, IoEvents& io_events, AccessCounters& counters,
            GuestLog& log);

  // The server is gone and may come back: its pages and eventfds leave the guest and this process.
  // The BARs stay where they are, every access to them is trapped.
  void trap();
  // It is back: what it shares now takes the place of what its predecessor shared. Regions as for
  // open(); what they hold outlives the next trap().
  void share(std::span<vfio_user::Region> regions, int pages_lost, GuestLog& log);

  // Every BAR gets its address; none is decoded before move().
  Result<void> place(BarAllocator& allocator, Bus& bus, PageMapper& mapper, GuestLog& log);

  // Guest accesses to the registers; they take effect with move().
  std::uint32_t read(std::uint32_t reg, std::uint32_t size) const {
    return registers_.read(reg, size);
  }
  void write(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
    registers_.write(reg, size, value);
  }
  // The device was reset: asks anew for the ioeventfds of the BARs that have some.
  void refresh_events();
  // Registers back to the placed addresses.
  void reset() { registers_.reset(); }

  // Ends the mappings that this COMMAND value no longer decodes.
  void close(std::uint16_t command);
  // Every mapping where this COMMAND value and the registers have it.
  void move(std::uint16_t command);

  // The BARs with the bytes of each that are shared pages.
  std::vector<BarInfo> list() const;

 private:
  struct Bar {
    Bar(const BarInfo& info, RegionPages shared, std::vector<AddressWindow> outside,
        RegionWindow::Shape shape, std::vector<Overlay> overlays, DeviceLink& link,
        IoEvents& io_events, AccessCounters& counters, GuestLog& log)
        : kept_out(std::move(outside)),
          pages(std::move(shared)),
          events(info, kept_out, io_events, log),
          window(std::move(shape), std::move(overlays), link, counters, log) {}
    const std::vector<AddressWindow> kept_out;
    bool maps_pages = false;
    RegionPages pages;
    RegionEvents events;
    RegionWindow window;
    std::optional<BarMapping> mapping;  // from place() on
  };

  BarRegisters registers_;
  std::array<std::unique_ptr<Bar>, BarRegisters::kCount> bars_;
};

}  // namespace outboard::devices
