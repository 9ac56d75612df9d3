// The pages of a region that the server shares: mapped into this process once, ready to become
// memslots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/address.h"
#include "devices/guest_log.h"
#include "devices/page_guard.h"
#include "vfio_user/device_description.h"

namespace outboard::devices {

// One contiguous run of shared pages. Offset counts from the start of the region.
struct SharedPages {
  std::uint64_t offset = 0;
  std::span<std::byte> bytes;
  bool writable = false;
};

// Owns the host mappings until it is destroyed. Immutable once opened, so any thread may read it.
class RegionPages final {
 public:
  RegionPages() = default;
  // Maps the region's areas without the pages that touch one of kept_out (MSI-X table and PBA). An
  // area that cannot be mapped - file too short, not a file, refused - stays trapped, with a log
  // line. `lost` is an eventfd that is signalled when the server shortens the file later on (see
  // page_guard.h). It and the region's files outlive this object.
  static RegionPages open(const vfio_user::Region& region, std::span<const AddressWindow> kept_out,
                          int lost, GuestLog& log);
  ~RegionPages();
  RegionPages(RegionPages&& other) noexcept;
  RegionPages& operator=(RegionPages&& other) noexcept;
  RegionPages(const RegionPages&) = delete;
  RegionPages& operator=(const RegionPages&) = delete;

  std::span<const SharedPages> runs() const { return runs_; }
  std::uint64_t total() const;

 private:
  std::vector<SharedPages> runs_;
  std::vector<GuardedPages> guards_;  // one a run
};

// The parts of area that touch none of the pages of kept_out, in order; all page aligned.
std::vector<AddressWindow> without_pages(AddressWindow area,
                                         std::span<const AddressWindow> kept_out);

}  // namespace outboard::devices
