#include "vfio_user/region_pages.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "vfio_user/text.h"

namespace outboard::vfio_user {

namespace {

std::string area_text(const SparseArea& area) {
  return "area " + hex(area.offset) + "+" + hex(area.size);
}

/// Empty when the area is good in itself.
std::string fault_of_area(const SparseArea& area, std::uint64_t region_size) {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  if (area.size == 0) return "is empty";
  if (area.offset % page != 0 || area.size % page != 0) return "is not page aligned";
  if (area.offset > region_size || area.size > region_size - area.offset) {
    return "ends beyond the region's " + hex(region_size);
  }
  return {};
}

/// A page of any other file system may be as late as whoever is behind it likes, and the vCPU that
/// touches it with it: a server can be a file system too.
bool answers_at_once(const struct statfs& system) {
  constexpr decltype(system.f_type) kXfs = 0x58465342;
  switch (system.f_type) {
    case TMPFS_MAGIC:  // a memfd too
    case RAMFS_MAGIC:
    case HUGETLBFS_MAGIC:
    case EXT4_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case kXfs:
      return true;
    default:
      return false;
  }
}

/// Empty when [offset, +area.size) of the file can be mapped the way the region is used.
std::string fault_of_file(int fd, std::uint64_t file_offset, const SparseArea& area,
                          bool writable) {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  struct stat status {};
  if (::fstat(fd, &status) != 0) return "has a file that fstat refuses: " + errno_text(errno);
  if (!S_ISREG(status.st_mode)) return "comes with a descriptor that is no regular file or memfd";
  struct statfs system {};
  if (::fstatfs(fd, &system) != 0 || !answers_at_once(system)) {
    return "comes with a file that is neither memory nor on a local disk, so that its pages may be "
           "late";
  }
  const int access = ::fcntl(fd, F_GETFL) & O_ACCMODE;
  if (access == O_WRONLY || (writable && access != O_RDWR)) {
    return "comes with a file that is not open for reading" +
           std::string(writable ? " and writing" : "");
  }
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (writable && seals > 0 && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0) {
    return "comes with a file that is sealed against writing";
  }
  constexpr std::uint64_t kMaxOffset = std::numeric_limits<off_t>::max();
  if (file_offset > kMaxOffset || area.offset > kMaxOffset - file_offset ||
      area.size > kMaxOffset - file_offset - area.offset) {
    return "lies beyond any file";
  }
  const std::uint64_t unit =
      system.f_type == HUGETLBFS_MAGIC ? static_cast<std::uint64_t>(system.f_bsize) : page;
  if ((file_offset + area.offset) % unit != 0 || area.size % unit != 0) {
    return "is not page aligned in its file";
  }
  const std::uint64_t end = file_offset + area.offset + area.size;
  if (end > static_cast<std::uint64_t>(status.st_size)) {
    return "needs " + hex(end) + " bytes of a file that has " +
           hex(static_cast<std::uint64_t>(status.st_size));
  }
  return {};
}

}  // namespace

void judge_pages(Region& region, const RegionInfoReply& info, std::vector<UniqueFd> fds) {
  if ((info.fixed.flags & wire::kRegionMappable) == 0 || region.size == 0) return;
  std::vector<SparseArea> areas = info.areas;
  if (!info.sparse) areas.push_back({0, region.size});
  if (areas.empty()) {
    region.trapped_because = "the server lists no area that may be mapped";
    return;
  }
  if (fds.empty()) {
    region.trapped_because = "the server sent no file descriptor with its pages";
    return;
  }
  const bool own_files = areas.size() > 1 && fds.size() >= areas.size();
  std::vector<std::size_t> order(areas.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return areas[a].offset < areas[b].offset; });

  std::uint64_t free_from = 0;
  for (const std::size_t i : order) {
    const SparseArea& area = areas[i];
    std::string fault = fault_of_area(area, region.size);
    if (fault.empty() && area.offset < free_from) fault = "overlaps another";
    if (fault.empty()) {
      fault =
          fault_of_file(fds[own_files ? i : 0].get(), region.file_offset, area, region.writable);
    }
    if (!fault.empty()) {
      region.trapped_because = area_text(area) + " " + fault;
      return;
    }
    free_from = area.offset + area.size;
  }

  for (const std::size_t i : order) {
    region.areas.push_back(areas[i]);
    if (own_files) region.fds.push_back(std::move(fds[i]));
  }
  if (!own_files) region.fds.push_back(std::move(fds[0]));
  region.mappable = true;
}

}  // namespace outboard::vfio_user
