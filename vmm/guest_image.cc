#include "vmm/guest_image.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <stop_token>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfio_user/given_fds.h"
#include "vmm/given_files.h"
#include "vmm/log.h"
#include "vmm/mapped_file.h"

namespace outboard::vmm {
namespace {

#ifndef MADV_POPULATE_WRITE
constexpr int MADV_POPULATE_WRITE = 23;  // Linux 5.14; without it nothing is made present
#endif
#ifndef MADV_COLLAPSE
constexpr int MADV_COLLAPSE = 25;  // Linux 6.1; without it pages stay small
#endif

tl::unexpected<MachineError> bad_file(const std::string& path, const std::string& what) {
  return failure(ExitStatus::boot_image, fmt::format("{}: {}", path, what));
}

Result<vfio_user::UniqueFd> open_file(const std::string& path, std::string_view key) {
  vfio_user::UniqueFd fd;
  if (vfio_user::is_given_fd(path)) {
    auto given = take_given(path, ExitStatus::boot_image);
    if (!given) return given;
    fd = std::move(*given);
    const int mode = ::fcntl(fd.get(), F_GETFL);
    if ((mode & O_PATH) != 0 || (mode & O_ACCMODE) == O_WRONLY)
      return bad_file(path, fmt::format("is not open for reading; it is {}", key));
  } else {
    fd.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  }
  if (!fd) {
    return bad_file(path,
                    fmt::format("{}; correct {} in the configuration", std::strerror(errno), key));
  }
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return bad_file(path, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) {
    return bad_file(path, fmt::format("is no regular file; correct {} in the configuration", key));
  }
  if (status.st_size == 0) return bad_file(path, "is empty");
  return fd;
}

// Makes the memory that a large kernel is about to be copied to present, and in huge pages where
// the host can: first touches of ten thousand small pages take longer than the copying, and the
// guest would pay for each of them once more. From the last piece down, on a thread of its own
// where there is a processor for it, while the kernel is unpacked or copied from the first byte up.
class MadePresent {
 public:
  MadePresent(std::span<std::byte> ram, boot::Extent extent) {
    if (extent.size < kWorthIt) return;
    const std::uint64_t end = std::min((extent.address + extent.size + kHuge - 1) / kHuge * kHuge,
                                       ram.size() / kHuge * kHuge);
    const auto range = ram.first(end).subspan(extent.address / kHuge * kHuge);
    if (std::thread::hardware_concurrency() < 2) {
      collapse(range);
      return;
    }
    thread_ = std::jthread([range](const std::stop_token& stop) {
      for (auto left = range; !left.empty() && !stop.stop_requested();) {
        const auto piece = left.last(std::min<std::size_t>(left.size(), kPiece));
        if (!collapse(piece)) ::madvise(piece.data(), piece.size(), MADV_POPULATE_WRITE);
        left = left.first(left.size() - piece.size());
      }
    });
  }

 private:
  static constexpr std::uint64_t kWorthIt = 8 * kMiB;
  static constexpr std::uint64_t kHuge = 2 * kMiB;
  static constexpr std::uint64_t kPiece = 8 * kMiB;

  // Whatever the host's settings for transparent huge pages are. A huge page of which nothing is
  // there yet is left alone by the kernel, so one small page of each is made first.
  static bool collapse(std::span<std::byte> range) {
    for (std::size_t at = 0; at < range.size(); at += kHuge) {
      ::madvise(range.data() + at, 1, MADV_POPULATE_WRITE);
    }
    return ::madvise(range.data(), range.size(), MADV_COLLAPSE) == 0;
  }

  std::jthread thread_;  // stopped and joined when the kernel is there
};

}  // namespace

Result<GuestImage> GuestImage::open(const MachineConfig& config) {
  GuestImage image;
  if (auto known = arch::check(config); !known) return tl::unexpected(known.error());
  if (config.kernel.empty()) {
    return failure(ExitStatus::boot_image,
                   "no kernel is named; set path in [kernel], or pass --kernel");
  }
  auto kernel = open_file(config.kernel, "kernel.path");
  if (!kernel) return tl::unexpected(kernel.error());
  image.kernel_ = std::move(*kernel);
  if (!config.initrd.empty()) {
    auto initrd = open_file(config.initrd, "kernel.initrd");
    if (!initrd) return tl::unexpected(initrd.error());
    image.initrd_ = std::move(*initrd);
  }
  image.kernel_path_ = config.kernel;
  image.initrd_path_ = config.initrd;
  image.command_line_ = config.command_line;
  image.entry_ = config.entry;
  image.keep_unpacked_ = config.keep_unpacked;
  return image;
}

Result<boot::EntryState> GuestImage::load(const GuestMemory& memory,
                                          const arch::MemoryLayout& layout,
                                          const arch::GuestDescription& guest) {
  if (auto loaded = load_kernel(memory); !loaded) return tl::unexpected(loaded.error());
  return load_rest(memory, layout, guest);
}

Result<void> GuestImage::load_kernel(const GuestMemory& memory) {
  const std::span<std::byte> ram = memory.bytes(memory.windows().front());
  const MappedFile kernel(kernel_.get());
  if (kernel.bytes().empty()) return bad_file(kernel_path_, "cannot be read");
  const MadePresent present(ram, arch::expected_extent(kernel.bytes(), ram.size(), entry_));
  if (keep_unpacked_ && !cache_ && arch::is_packed_kernel(kernel.bytes())) {
    cache_.emplace(KernelCache::user_folder(), kernel_.get());
  }
  auto loaded = arch::load_kernel(kernel.bytes(), memory, entry_, cache_ ? &*cache_ : nullptr);
  if (cache_) cache_->forget_mapping();
  if (!loaded) return bad_file(kernel_path_, loaded.error().message);
  if (!loaded->said.empty() && !said_) log::info("{}: {}", kernel_path_, loaded->said);
  said_ = true;
  loaded_ = std::move(*loaded);
  return {};
}

Result<boot::EntryState> GuestImage::load_rest(const GuestMemory& memory,
                                               const arch::MemoryLayout& layout,
                                               arch::GuestDescription guest) {
  const MappedFile initrd(initrd_.get());
  if (initrd_ && initrd.bytes().empty()) return bad_file(initrd_path_, "cannot be read");
  guest.command_line = command_line_;
  guest.initrd_size = initrd.bytes().size();
  return arch::place_boot_data(loaded_, guest, initrd.bytes(), layout, memory);
}

}  // namespace outboard::vmm
