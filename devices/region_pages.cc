#include "devices/region_pages.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include <sys/mman.h>

#include "devices/host_page.h"

namespace outboard::devices {
namespace {

std::uint64_t page_down(std::uint64_t at) {
  return at & ~(host_page() - 1);
}
std::uint64_t page_up(std::uint64_t at) {
  return page_down(at + host_page() - 1);
}

}  // namespace

std::vector<AddressWindow> without_pages(AddressWindow area,
                                         std::span<const AddressWindow> kept_out) {
  std::vector<AddressWindow> out{area};
  for (const AddressWindow& hole : kept_out) {
    if (hole.size == 0) continue;
    const std::uint64_t from = page_down(hole.base);
    const std::uint64_t to = page_up(hole.end());
    std::vector<AddressWindow> next;
    for (const AddressWindow& part : out) {
      if (to <= part.base || from >= part.end()) {
        next.push_back(part);
        continue;
      }
      if (from > part.base) next.push_back({part.base, from - part.base});
      if (to < part.end()) next.push_back({to, part.end() - to});
    }
    out = std::move(next);
  }
  return out;
}

RegionPages RegionPages::open(const vfio_user::Region& region,
                              std::span<const AddressWindow> kept_out, int lost, GuestLog& log) {
  RegionPages out;
  const auto trapped = [&](const std::string& why) {
    log.line(Severity::warning,
             "pages of region " + std::to_string(region.index) + " stay trapped: " + why);
  };
  if (!region.mappable) {
    if (!region.trapped_because.empty()) trapped(region.trapped_because);
    return out;
  }
  const int protection = PROT_READ | (region.writable ? PROT_WRITE : 0);
  for (std::size_t i = 0; i < region.areas.size(); ++i) {
    const AddressWindow area{region.areas[i].offset, region.areas[i].size};
    for (const AddressWindow& part : without_pages(area, kept_out)) {
      const auto at = static_cast<off_t>(region.file_offset + part.base);
      void* const host = ::mmap(nullptr, part.size, protection, MAP_SHARED, region.area_fd(i), at);
      if (host == MAP_FAILED) {
        trapped(std::string("mmap: ") + std::strerror(errno));
        continue;
      }
      const std::span<std::byte> bytes(static_cast<std::byte*>(host), part.size);
      GuardedPages guard(bytes, region.area_fd(i), region.file_offset + part.base, lost);
      if (!guard) {
        trapped("too many shared areas, over all devices");
        ::munmap(host, part.size);
        continue;
      }
      out.runs_.push_back({part.base, bytes, region.writable});
      out.guards_.push_back(std::move(guard));
    }
  }
  return out;
}

RegionPages::~RegionPages() {
  guards_.clear();
  for (const SharedPages& run : runs_) ::munmap(run.bytes.data(), run.bytes.size());
}

RegionPages::RegionPages(RegionPages&& other) noexcept
    : runs_(std::exchange(other.runs_, {})), guards_(std::exchange(other.guards_, {})) {}

RegionPages& RegionPages::operator=(RegionPages&& other) noexcept {
  std::swap(runs_, other.runs_);
  std::swap(guards_, other.guards_);
  return *this;
}

std::uint64_t RegionPages::total() const {
  std::uint64_t bytes = 0;
  for (const SharedPages& run : runs_) bytes += run.bytes.size();
  return bytes;
}

}  // namespace outboard::devices
