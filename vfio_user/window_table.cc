#include "vfio_user/window_table.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <limits>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace outboard::vfio_user {

namespace {

constexpr std::uint64_t kPage = 4096;  // what `pgsizes` of our VERSION reply says

std::string range_text(std::uint64_t address, std::uint64_t size) {
  char text[64];
  std::snprintf(text, sizeof(text),
                "DMA window at 0x%llx of 0x%llx bytes: ", static_cast<unsigned long long>(address),
                static_cast<unsigned long long>(size));
  return text;
}

/// mmap of hugetlbfs takes offsets and lengths in huge pages only.
std::uint64_t map_granule(int fd, const struct stat& status) {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  struct statfs system {};
  if (::fstatfs(fd, &system) == 0 && system.f_type == HUGETLBFS_MAGIC) {
    return std::max(page, static_cast<std::uint64_t>(status.st_blksize));
  }
  return page;
}

Result<void> check_request(const wire::DmaMap& request, bool has_fd) {
  constexpr std::uint32_t kModes = wire::kDmaMmap | wire::kDmaFileIo;
  constexpr std::uint32_t kAccess = wire::kDmaReadable | wire::kDmaWritable;
  const auto refuse = [&](const char* why) {
    return fail(Error::Kind::invalid, EINVAL, range_text(request.address, request.size) + why);
  };
  if ((request.flags & ~(kModes | kAccess)) != 0) return refuse("unknown flags");
  if ((request.flags & kAccess) == 0) return refuse("neither readable nor writable");
  if ((request.flags & kModes) != 0 && !has_fd) return refuse("a way of access without a file");
  if (request.size == 0) return refuse("it is empty");
  if (request.address + (request.size - 1) < request.address) return refuse("it wraps around");
  if (request.offset + request.size < request.offset) return refuse("its file offset wraps around");
  if (request.address % kPage != 0 || request.size % kPage != 0 || request.offset % kPage != 0) {
    return refuse("address, size and file offset must be multiples of 4096");
  }
  return {};
}

}  // namespace

Mapping::Mapping(Mapping&& other) noexcept
    : whole_(std::exchange(other.whole_, {})), bytes_(std::exchange(other.bytes_, {})) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(whole_, other.whole_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Mapping::~Mapping() {
  if (!whole_.empty()) ::munmap(whole_.data(), whole_.size());
}

Result<Mapping> Mapping::of_file(int fd, std::uint64_t offset, std::uint64_t size, bool readable,
                                 bool writable) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    return fail(Error::Kind::system, errno, "cannot look at the file");
  }
  const std::uint64_t granule = map_granule(fd, status);
  const std::uint64_t begin = offset - offset % granule;
  const std::uint64_t end = (offset + size + granule - 1) / granule * granule;
  if (end < offset || end - begin > std::numeric_limits<std::ptrdiff_t>::max() ||
      begin > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) {
    return fail(Error::Kind::invalid, EINVAL, "too large to be mapped");
  }
  const int protection = (readable ? PROT_READ : 0) | (writable ? PROT_WRITE : 0);
  void* address = ::mmap(nullptr, end - begin, protection, MAP_SHARED | MAP_NORESERVE, fd,
                         static_cast<off_t>(begin));
  if (address == MAP_FAILED) {
    const int code = errno;
    return fail(Error::Kind::system, code, "mmap: " + std::system_category().message(code));
  }
  Mapping mapping;
  mapping.whole_ = {static_cast<std::byte*>(address), end - begin};
  mapping.bytes_ = mapping.whole_.subspan(offset - begin, size);
  return mapping;
}

Result<const WindowTable::Window*> WindowTable::map(const wire::DmaMap& request, UniqueFd fd) {
  if (auto checked = check_request(request, static_cast<bool>(fd)); !checked) {
    return tl::make_unexpected(checked.error());
  }
  const std::string what = range_text(request.address, request.size);
  const auto place = std::lower_bound(
      windows_.begin(), windows_.end(), request.address,
      [](const Window& window, std::uint64_t address) { return window.info.address < address; });
  const std::uint64_t last = request.address + (request.size - 1);
  if ((place != windows_.end() && place->info.address <= last) ||
      (place != windows_.begin() &&
       std::prev(place)->info.address + (std::prev(place)->info.size - 1) >= request.address)) {
    return fail(Error::Kind::invalid, EEXIST, what + "it overlaps another window");
  }
  if (windows_.size() >= max_windows_) {
    return fail(Error::Kind::limit, ENOSPC,
                what + "there are " + std::to_string(max_windows_) + " windows already");
  }

  Window window;
  window.info = {request.address,
                 request.size,
                 {},
                 (request.flags & wire::kDmaReadable) != 0,
                 (request.flags & wire::kDmaWritable) != 0,
                 false,
                 0,
                 0,
                 request.offset};
  if (fd) {
    // Seals before length: a sealed length cannot shrink after it was looked at.
    const int seals = ::fcntl(fd.get(), F_GET_SEALS);
    window.info.sealed = seals >= 0 && (seals & F_SEAL_SHRINK) != 0;
    if (require_seal_ && !window.info.sealed) {
      return fail(Error::Kind::invalid, EPERM,
                  what + "its memory can be truncated; seal the memfd with F_SEAL_SHRINK");
    }
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
      return fail(Error::Kind::invalid, EINVAL,
                  what + "its file is neither a memfd nor a regular file");
    }
    if (static_cast<std::uint64_t>(status.st_size) < request.offset + request.size) {
      return fail(Error::Kind::invalid, EINVAL,
                  what + "its file ends at " + std::to_string(status.st_size) +
                      " bytes; give the file its length before it is mapped");
    }
    window.info.file_device = status.st_dev;
    window.info.file_inode = status.st_ino;
    const std::uint32_t modes = request.flags & (wire::kDmaMmap | wire::kDmaFileIo);
    if (modes == wire::kDmaFileIo) {
      window.file = std::move(fd);
      window.file_offset = request.offset;
    } else {
      auto mapping = Mapping::of_file(fd.get(), request.offset, request.size, window.info.readable,
                                      window.info.writable);
      if (!mapping) {
        Error error = mapping.error();
        error.message = what + error.message;
        return tl::make_unexpected(std::move(error));
      }
      window.mapping = std::move(*mapping);
      window.info.host = window.mapping.bytes();
    }
  }
  return &*windows_.insert(place, std::move(window));
}

const WindowTable::Window* WindowTable::exact(std::uint64_t address, std::uint64_t size) const {
  const Window* window = holding(address);
  return window != nullptr && window->info.address == address && window->info.size == size
             ? window
             : nullptr;
}

const WindowTable::Window* WindowTable::holding(std::uint64_t address) const {
  const auto holds = [&](const Window& window) {
    return address >= window.info.address && address - window.info.address < window.info.size;
  };
  if (last_hit_ < windows_.size() && holds(windows_[last_hit_])) return &windows_[last_hit_];
  const auto after = std::upper_bound(
      windows_.begin(), windows_.end(), address,
      [](std::uint64_t value, const Window& window) { return value < window.info.address; });
  if (after == windows_.begin() || !holds(*std::prev(after))) return nullptr;
  last_hit_ = static_cast<std::size_t>(std::prev(after) - windows_.begin());
  return &*std::prev(after);
}

void WindowTable::remove(const Window* window) {
  windows_.erase(windows_.begin() + (window - windows_.data()));
}

std::span<std::byte> WindowTable::translate(std::uint64_t iova, std::uint64_t size,
                                            bool write) const {
  const Window* window = size == 0 ? nullptr : holding(iova);
  if (window == nullptr || window->info.host.empty()) return {};
  if (write ? !window->info.writable : !window->info.readable) return {};
  const std::uint64_t offset = iova - window->info.address;
  if (size > window->info.size - offset) return {};
  return window->info.host.subspan(offset, size);
}

}  // namespace outboard::vfio_user
