#include "devices/region_pages.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include <sys/mman.h>
#include <sys/stat.h>

namespace outboard::devices {
namespace {

constexpr std::uint64_t kPage = 4096;

constexpr std::uint64_t page_down(std::uint64_t at) {
  return at & ~(kPage - 1);
}
constexpr std::uint64_t page_up(std::uint64_t at) {
  return page_down(at + kPage - 1);
}

// Why the file cannot back [offset, offset + size), or nothing. A touch beyond its end would raise
// SIGBUS.
std::string unfit(int fd, std::uint64_t offset, std::uint64_t size) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return std::string("fstat: ") + std::strerror(errno);
  if (!S_ISREG(info.st_mode)) return "the descriptor is no regular file or memfd";
  const auto length = static_cast<std::uint64_t>(info.st_size);
  if (offset > length || size > length - offset) {
    return "the file has " + std::to_string(length) + " bytes and ends before the area";
  }
  return {};
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
                              std::span<const AddressWindow> kept_out, GuestLog& log) {
  RegionPages out;
  if (!region.mappable) return out;
  for (std::size_t i = 0; i < region.areas.size(); ++i) {
    const AddressWindow area{region.areas[i].offset, region.areas[i].size};
    const int fd = region.area_fd(i);
    const auto trap = [&](const std::string& why) {
      log.line(Severity::warning, "region " + std::to_string(region.index) +
                                      ": the shared area at offset " + std::to_string(area.base) +
                                      " stays trapped: " + why);
    };
    if (auto why = unfit(fd, region.file_offset + area.base, area.size); !why.empty()) {
      trap(why);
      continue;
    }
    for (const AddressWindow& part : without_pages(area, kept_out)) {
      const auto at = static_cast<off_t>(region.file_offset + part.base);
      bool writable = region.writable;
      void* host = MAP_FAILED;
      if (writable) {
        host = ::mmap(nullptr, part.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, at);
      }
      if (host == MAP_FAILED) {  // a read-only descriptor: stores go to the server
        writable = false;
        host = ::mmap(nullptr, part.size, PROT_READ, MAP_SHARED, fd, at);
      }
      if (host == MAP_FAILED) {
        trap(std::string("mmap: ") + std::strerror(errno));
        continue;
      }
      out.runs_.push_back({part.base, {static_cast<std::byte*>(host), part.size}, writable});
    }
  }
  return out;
}

RegionPages::~RegionPages() {
  for (const SharedPages& run : runs_) ::munmap(run.bytes.data(), run.bytes.size());
}

RegionPages::RegionPages(RegionPages&& other) noexcept : runs_(std::exchange(other.runs_, {})) {}

RegionPages& RegionPages::operator=(RegionPages&& other) noexcept {
  std::swap(runs_, other.runs_);
  return *this;
}

std::uint64_t RegionPages::total() const {
  std::uint64_t bytes = 0;
  for (const SharedPages& run : runs_) bytes += run.bytes.size();
  return bytes;
}

}  // namespace outboard::devices
