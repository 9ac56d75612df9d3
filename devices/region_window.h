// The trapped accesses of one BAR, each one message to the server at the guest's own width.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "devices/access_counters.h"
#include "devices/address.h"
#include "devices/bus.h"
#include "devices/device_link.h"
#include "devices/guest_log.h"
#include "devices/region_events.h"

namespace outboard::devices {

// What answers a part of the region in place of the server (MSI-X table, PBA).
struct Overlay {
  AddressWindow range;  // from the start of the region
  BusDevice* device;    // offsets from the start of range
};

// Serves any vCPU thread, with no lock held while the server is asked (but see taking_). What does
// not lie in the region, is not readable, or fails, reads all ones; such writes are dropped. While
// the server is gone, accesses wait as long as the link has them wait.
class RegionWindow final : public BusDevice {
 public:
  struct Shape {
    std::uint32_t region = 0;
    std::uint64_t size = 0;  // of the region; the BAR may be larger
    bool readable = false;
    bool writable = false;
    // Parts that are shared pages. The guest reaches them without an exit: an access that comes
    // here all the same may have met a page that is gone, and is looked into (see page_guard.h).
    std::vector<AddressWindow> shared = {};
  };

  RegionWindow(Shape shape, std::vector<Overlay> overlays, DeviceLink& link,
               AccessCounters& counters, GuestLog& log);

  void read(std::uint64_t offset, std::span<std::byte> data) override;
  void write(std::uint64_t offset, std::span<const std::byte> data) override;

  // The region offered ioeventfds at attach: from now on every trapped store outside of them asks
  // for the offer anew in the same round trip and returns when the answer is in force, since the
  // store may have changed it (a controller reset). Once, before the first access; events outlives
  // the last one.
  void watch_events(RegionEvents& events) { events_ = &events; }
  bool watches_events() const { return events_ != nullptr; }
  // Asks for the offer anew; nothing when there was none at attach. Under the function's lock.
  void refresh_events();
  // The offer of a server that has come back, or of one that is gone: none. Under the function's
  // lock.
  void set_events(std::vector<vfio_user::IoFd> ranges);

 private:
  enum class Target { server, overlay, nothing };
  Target find(std::uint64_t offset, std::uint64_t size, const Overlay*& overlay) const;
  vfio_user::Result<void> write_and_ask(vfio_user::Client& client, std::uint64_t offset,
                                        std::span<const std::byte> data);
  void take(vfio_user::Result<std::vector<vfio_user::IoFd>> ranges);  // taking_ held
  void look_at_pages(std::uint64_t offset, std::uint64_t size) const;
  void report(const char* what, std::uint64_t offset, std::uint64_t size,
              const vfio_user::Error& error);

  const Shape shape_;
  const std::vector<Overlay> overlays_;
  DeviceLink& link_;
  AccessCounters& counters_;
  GuestLog& log_;
  RegionEvents* events_ = nullptr;

  // Held while an answer comes into force; before the lock of *events_. Stores of several vCPUs ask
  // at the same time without it. An answer is used if no other was since its question left, so it
  // is newer than the one in force; else, and if it differs, the server is asked once more with the
  // lock held.
  std::mutex taking_;
  std::atomic<std::uint64_t> answers_{0};  // counted under taking_
};

}  // namespace outboard::devices
