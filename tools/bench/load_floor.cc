#include "tools/bench/load_floor.h"

#include <algorithm>
#include <span>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/kernel.h"
#include "tools/bench/clock.h"
#include "tools/bench/memory_file.h"
#include "vfio_user/unique_fd.h"

namespace outboard::bench {
namespace {

// Guest memory below the PCI hole, which is all that a kernel is loaded into.
constexpr std::uint64_t kLowMemory = std::uint64_t{3} << 30;

class Mapping {
 public:
  Mapping(int fd, std::size_t size, int protection, int flags)
      : data_(::mmap(nullptr, size, protection, flags, fd, 0)), size_(size) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (good()) ::munmap(data_, size_);
  }
  [[nodiscard]] bool good() const { return data_ != MAP_FAILED; }
  [[nodiscard]] std::span<std::byte> bytes() const {
    return {static_cast<std::byte*>(data_), size_};
  }

 private:
  void* data_;
  std::size_t size_;
};

}  // namespace

Error LoadFloor::unreadable() const {
  return {ExitStatus::missing, fmt::format("the kernel {} cannot be read", kernel_)};
}

Result<LoadFloor> LoadFloor::open(const std::string& kernel, std::uint64_t memory) {
  LoadFloor floor;
  floor.kernel_ = kernel;
  floor.file_.reset(::open(kernel.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (!floor.file_ || ::fstat(floor.file_.get(), &status) != 0 || status.st_size <= 0)
    return tl::unexpected(floor.unreadable());
  floor.file_size_ = static_cast<std::size_t>(status.st_size);
  floor.memory_ = static_cast<std::size_t>(std::min(memory, kLowMemory));
  return floor;
}

Result<void> LoadFloor::measure() {
  const vfio_user::UniqueFd guest = memory_file("guest memory");
  if (!guest || ::ftruncate(guest.get(), static_cast<off_t>(memory_)) != 0)
    return tl::unexpected(unreadable());
  const Mapping ram(guest.get(), memory_, PROT_READ | PROT_WRITE, MAP_SHARED);
  if (!ram.good()) return tl::unexpected(unreadable());
  const auto begin = monotonic_now();
  const Mapping source(file_.get(), file_size_, PROT_READ, MAP_PRIVATE | MAP_POPULATE);
  if (!source.good()) return tl::unexpected(unreadable());
  const auto loaded = boot::load_kernel(source.bytes(), ram.bytes(), boot::Entry::automatic);
  const auto end = monotonic_now();
  if (!loaded)
    return fail(ExitStatus::missing, fmt::format("{} {}", kernel_, loaded.error().message));
  sample_.add(static_cast<double>(end - begin));
  return {};
}

}  // namespace outboard::bench
