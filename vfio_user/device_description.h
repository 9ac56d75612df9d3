// What a vfio-user server told about its device, checked, as plain data: regions with their
// mappable areas, interrupts, and the configuration space as read once at attach.
//
// Produced by Client::attach() and owned by whoever asked; no thread of the client touches it
// afterwards.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "vfio_user/io_fd.h"
#include "vfio_user/sparse_area.h"
#include "vfio_user/unique_fd.h"
#include "vfio_user/wire.h"

namespace outboard::vfio_user {

using wire::kIrqErr;
using wire::kIrqIntx;
using wire::kIrqMsi;
using wire::kIrqMsix;
using wire::kIrqReq;
using wire::kRegionBar0;
using wire::kRegionConfig;
using wire::kRegionRom;
using wire::kRegionVga;

// One region. `mappable` holds only when every area passed the checks of the client: page aligned,
// inside the region, inside a regular file or memfd, none overlapping another. Otherwise the region
// is trapped and `trapped_because` says why.
struct Region {
  std::uint32_t index = 0;
  std::uint64_t size = 0;  // bytes; 0 = the region does not exist
  bool readable = false;   // without it reads are all ones and no message is sent
  bool writable = false;   // without it writes are dropped and no message is sent
  bool mappable = false;
  std::uint64_t file_offset = 0;  // area i lies at file_offset + areas[i].offset in its file
  std::vector<SparseArea> areas;  // sorted by offset; empty unless mappable
  std::vector<UniqueFd> fds;      // one for all areas, or one an area; empty unless mappable
  std::string trapped_because;    // empty when mappable, or when the server never offered pages
  // What Client::region_io_fds() would say, asked together with the rest: of writable BARs without
  // pages only, and empty when the offer could not be used; `io_fds_refused` says why.
  std::vector<IoFd> io_fds;
  std::string io_fds_refused;

  // The file of area `i` (i < areas.size(), region mappable).
  [[nodiscard]] int area_fd(std::size_t i) const {
    return fds.size() == 1 ? fds[0].get() : fds[i].get();
  }
};

struct Irq {
  std::uint32_t index = 0;
  std::uint32_t count = 0;
  bool eventfd = false;
  bool maskable = false;
  bool automasked = false;
  bool noresize = false;
  bool armed = false;     // by attach(), with the eventfd it was given
  std::string refused{};  // why not, although it was given one
};

// An eventfd for the first vector of an interrupt, to be armed as a part of attach().
struct SignalFd {
  std::uint32_t index = 0;
  int eventfd = -1;  // the caller's
};

struct DeviceDescription {
  bool resettable = false;
  std::vector<Region> regions;  // regions[i].index == i
  std::vector<Irq> irqs;        // irqs[i].index == i
  std::vector<std::byte>
      config;  // the whole configuration region as read once; empty if it has size 0
  // Dependent round trips attach() needed (requests in flight together count as one); VERSION, made
  // by connect(), is one more and not in this figure.
  std::uint32_t round_trips = 0;
  // When the last DMA window was mapped and DEVICE_GET_INFO answered.
  std::chrono::steady_clock::time_point mapped_at{};
};

}  // namespace outboard::vfio_user
