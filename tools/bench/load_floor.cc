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

Result<Sample> load_floor(const std::string& kernel, std::uint64_t memory, int rounds) {
  const auto unreadable = [&] {
    return fail(ExitStatus::missing, fmt::format("the kernel {} cannot be read", kernel));
  };
  const vfio_user::UniqueFd file(::open(kernel.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (!file || ::fstat(file.get(), &status) != 0 || status.st_size <= 0) return unreadable();
  const auto low = static_cast<std::size_t>(std::min(memory, kLowMemory));
  Sample sample;
  for (int i = 0; i < rounds; ++i) {
    const vfio_user::UniqueFd guest = memory_file("guest memory");
    if (!guest || ::ftruncate(guest.get(), static_cast<off_t>(low)) != 0) return unreadable();
    const Mapping ram(guest.get(), low, PROT_READ | PROT_WRITE, MAP_SHARED);
    if (!ram.good()) return unreadable();
    const auto begin = monotonic_now();
    const Mapping source(file.get(), static_cast<std::size_t>(status.st_size), PROT_READ,
                         MAP_PRIVATE | MAP_POPULATE);
    if (!source.good()) return unreadable();
    const auto loaded = boot::load_kernel(source.bytes(), ram.bytes(), boot::Entry::automatic);
    const auto end = monotonic_now();
    if (!loaded)
      return fail(ExitStatus::missing, fmt::format("{} {}", kernel, loaded.error().message));
    sample.add(static_cast<double>(end - begin));
  }
  return sample;
}

}  // namespace outboard::bench
