#include "vmm/guest_image.h"

#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfio_user/given_fds.h"
#include "vmm/first_pages.h"
#include "vmm/given_files.h"
#include "vmm/log.h"
#include "vmm/mapped_file.h"

namespace outboard::vmm {
namespace {

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
  image.prefault_first_ =
      config.prefault == Prefault::automatic && config.page_size == PageSize::k4;
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
  const FirstPages present(memory, arch::expected_extent(kernel.bytes(), ram.size(), entry_),
                           prefault_first_);
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
