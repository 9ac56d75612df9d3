#include "vmm/guest_memory.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/given_files.h"
#include "vmm/memory_advice.h"

namespace outboard::vmm {
namespace {

constexpr std::uint64_t kWindowAlignment = 2 * kMiB;

std::string size_text(std::uint64_t bytes) {
  if (bytes % kGiB == 0) return fmt::format("{} GiB", bytes / kGiB);
  return fmt::format("{} MiB", bytes / kMiB);
}

// A number the kernel keeps in a file of sysfs; 0 when it is not there.
std::uint64_t read_number(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  file >> value;
  return file ? value : 0;
}

// Bytes the host can give without swapping; 0 when it does not say.
std::uint64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  std::uint64_t kib = 0;
  std::string unit;
  while (file >> key >> kib && std::getline(file, unit)) {
    if (key == "MemAvailable:") return kib * kKiB;
  }
  return 0;
}

// The line a user needs when huge pages cannot be had.
std::string huge_page_remedy(PageSize page_size, std::uint64_t size) {
  const std::uint64_t page = static_cast<std::uint64_t>(page_size);
  const std::string folder = fmt::format("/sys/kernel/mm/hugepages/hugepages-{}kB/", page / kKiB);
  const std::uint64_t needed = (size + page - 1) / page;
  const std::uint64_t free = read_number(folder + "free_hugepages");
  const std::uint64_t reserved = read_number(folder + "resv_hugepages");
  return fmt::format(
      "{} pages of {} are needed and {} are free; reserve them with 'echo {} > {}nr_hugepages', or "
      "set page_size = \"4K\"",
      needed, size_text(page), free - std::min(free, reserved), needed, folder);
}

// Reserves address space for `size` bytes whose start is a multiple of `alignment`.
std::byte* reserve(std::uint64_t size, std::uint64_t alignment) {
  void* raw = ::mmap(nullptr, size + alignment, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<std::uintptr_t>(raw);
  const std::uintptr_t aligned = (start + alignment - 1) / alignment * alignment;
  if (aligned > start) ::munmap(raw, aligned - start);
  const std::uintptr_t end = start + size + alignment;
  if (end > aligned + size) ::munmap(reinterpret_cast<void*>(aligned + size), end - aligned - size);
  return reinterpret_cast<std::byte*>(aligned);
}

Result<vfio_user::UniqueFd> make_file(std::uint64_t size, PageSize page_size) {
  unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  if (page_size == PageSize::m2) flags |= MFD_HUGETLB | MFD_HUGE_2MB;
  if (page_size == PageSize::g1) flags |= MFD_HUGETLB | MFD_HUGE_1GB;
  vfio_user::UniqueFd fd(::memfd_create("guest-ram", flags));
  if (!fd) {
    const int error = errno;
    if (page_size != PageSize::k4) {
      return failure(ExitStatus::memory,
                     fmt::format("this host has no huge pages of that size ({}): {}",
                                 std::strerror(error), huge_page_remedy(page_size, size)));
    }
    return failure(ExitStatus::memory,
                   fmt::format("cannot make the file for guest memory: {}", std::strerror(error)));
  }
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) {
    const int error = errno;
    return failure(ExitStatus::memory, fmt::format("cannot make guest memory of {}: {}",
                                                   size_text(size), std::strerror(error)));
  }
  return fd;
}

// The same file once more, for reading only. Whoever has it could open the file for writing through
// /proc, by its mode: that leaves nobody but root, and a process of this user that changes it back.
vfio_user::UniqueFd reopen_for_reading(int fd) {
  ::fchmod(fd, S_IRUSR);
  return vfio_user::UniqueFd(
      ::open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDONLY | O_CLOEXEC));
}

}  // namespace

Result<void> GuestMemory::make_files(std::vector<FilePlan> files, vfio_user::UniqueFd given) {
  if (files.empty()) files.push_back({.offset = 0, .size = size_});
  files_ = std::move(files);
  if (given) {
    if (auto good = check_memory_file(given.get(), size_, page_size_); !good) return good;
    fds_.push_back(std::move(given));
    return {};
  }
  for (const FilePlan& file : files_) {
    auto fd = make_file(file.size, page_size_);
    if (!fd) return tl::unexpected(fd.error());
    fds_.push_back(std::move(*fd));
  }
  return {};
}

// Once they are mapped here: one that no server may write to takes no writable mapping after that,
// by whatever descriptor (Linux 5.1).
Result<void> GuestMemory::seal_files() {
  for (std::size_t i = 0; i < files_.size(); ++i) {
    const int fd = fds_[i].get();
    const bool frozen = !files_[i].writable && ::fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0;
    // No process that holds the file may change its size under the others.
    const bool sealed_before = (::fcntl(fd, F_GET_SEALS) & F_SEAL_SEAL) != 0;
    if (!sealed_before &&
        ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
      const int error = errno;
      return failure(ExitStatus::memory,
                     fmt::format("cannot seal guest memory: {}", std::strerror(error)));
    }
    vfio_user::UniqueFd reader;
    if (files_[i].read_only) reader = reopen_for_reading(fd);
    if (files_[i].read_only && !reader && frozen) {
      reader.reset(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    }
    read_only_fds_.push_back(std::move(reader));
  }
  return {};
}

Result<GuestMemory> GuestMemory::create(std::vector<RamWindow> windows, PageSize page_size,
                                        std::vector<FilePlan> files, vfio_user::UniqueFd given) {
  GuestMemory memory;
  memory.page_size_ = page_size;
  for (const RamWindow& window : windows) {
    const bool aligned = window.address % kWindowAlignment == 0 &&
                         window.size % kWindowAlignment == 0 && window.size != 0;
    if (!aligned || window.file_offset != memory.size_) {
      return failure(ExitStatus::memory, "guest memory windows must be multiples of 2 MiB");
    }
    memory.size_ += window.size;
  }
  const auto page = static_cast<std::uint64_t>(page_size);
  if (memory.size_ % page != 0) {
    return failure(ExitStatus::memory,
                   fmt::format("memory of {} is no multiple of the page size, {}",
                               size_text(memory.size_), size_text(page)));
  }
  if (auto made = memory.make_files(std::move(files), std::move(given)); !made) {
    return tl::unexpected(made.error());
  }

  std::byte* base = reserve(memory.size_, std::max(page, kWindowAlignment));
  memory.base_ = base;  // and unmapped with the object
  // Without huge pages nothing is reserved: a guest may have more memory than it will ever touch.
  const int flags = MAP_SHARED | MAP_FIXED | (page_size == PageSize::k4 ? MAP_NORESERVE : 0);
  bool mapped = base != nullptr;
  for (std::size_t i = 0; mapped && i < memory.files_.size(); ++i) {
    const FilePlan& file = memory.files_[i];
    mapped = ::mmap(base + file.offset, file.size, PROT_READ | PROT_WRITE, flags, memory.fd(i),
                    0) != MAP_FAILED;
  }
  if (!mapped) {
    const int error = errno;
    return failure(
        ExitStatus::memory,
        page_size == PageSize::k4
            ? fmt::format("cannot map guest memory of {}: {}; lower memory, or raise 'ulimit -v'",
                          size_text(memory.size_), std::strerror(error))
            : fmt::format("cannot map guest memory of {}: {}", size_text(memory.size_),
                          huge_page_remedy(page_size, memory.size_)));
  }
  // The guest's memory is no part of a core dump, and a child never needs it.
  ::madvise(base, memory.size_, MADV_DONTDUMP);
  ::madvise(base, memory.size_, MADV_DONTFORK);
  // Where the host allows it, shared memory gets transparent huge pages.
  if (page_size == PageSize::k4) ::madvise(base, memory.size_, MADV_HUGEPAGE);

  if (auto sealed = memory.seal_files(); !sealed) return tl::unexpected(sealed.error());
  memory.windows_ = std::move(windows);
  return memory;
}

GuestMemory::GuestMemory(GuestMemory&& other) noexcept
    : files_(std::move(other.files_)),
      fds_(std::move(other.fds_)),
      read_only_fds_(std::move(other.read_only_fds_)),
      windows_(std::move(other.windows_)),
      size_(other.size_),
      page_size_(other.page_size_),
      base_(std::exchange(other.base_, nullptr)) {}

GuestMemory::~GuestMemory() {
  if (base_ != nullptr) ::munmap(base_, size_);
}

std::span<std::byte> GuestMemory::bytes(const RamWindow& window) const {
  return {base_ + window.file_offset, window.size};
}

std::span<std::byte> GuestMemory::at(std::uint64_t address, std::uint64_t size) const {
  for (const RamWindow& window : windows_) {
    if (address < window.address) continue;
    const std::uint64_t offset = address - window.address;
    if (offset >= window.size || size > window.size - offset) continue;
    return {base_ + window.file_offset + offset, size};
  }
  return {};
}

bool GuestMemory::allocate(std::uint64_t from, std::uint64_t length) const {
  for (std::size_t i = 0; i < files_.size(); ++i) {
    const FilePlan& file = files_[i];
    const std::uint64_t begin = std::max(from, file.offset);
    const std::uint64_t end = std::min(from + length, file.offset + file.size);
    if (begin >= end) continue;
    if (::fallocate(fd(i), 0, static_cast<off_t>(begin - file.offset),
                    static_cast<off_t>(end - begin)) != 0) {
      return false;
    }
  }
  return true;
}

Result<void> GuestMemory::populate(unsigned threads) const {
  // Better a line now than the kernel's out-of-memory killer in a minute.
  if (const std::uint64_t available = available_memory();
      page_size_ == PageSize::k4 && available != 0 && size_ > available) {
    return failure(ExitStatus::memory,
                   fmt::format("cannot prefault guest memory of {}: this host has {} MiB left; "
                               "lower memory, or set prefault = \"off\"",
                               size_text(size_), available / kMiB));
  }
  const std::uint64_t step =
      std::max<std::uint64_t>(static_cast<std::uint64_t>(page_size_), 64 * kMiB);
  std::atomic<std::uint64_t> next{0};  // the first byte that no thread has taken
  std::atomic<int> error{0};           // the first errno
  const auto work = [&] {
    for (;;) {
      const std::uint64_t from = next.fetch_add(step);
      if (from >= size_ || error.load() != 0) return;
      const std::uint64_t length = std::min(step, size_ - from);
      if (::madvise(base_ + from, length, MADV_POPULATE_WRITE) == 0) continue;
      if (errno == EINVAL) {
        // A kernel before 5.14: allocate in the file; the guest's first touch then only maps.
        if (allocate(from, length)) continue;
      }
      if (errno == EINTR || errno == EAGAIN) {
        next.store(from);
        continue;
      }
      error.store(errno);
      return;
    }
  };
  const auto helpers = static_cast<std::size_t>(
      std::min<std::uint64_t>(threads > 0 ? threads - 1 : 0, size_ / step));
  {
    std::vector<std::jthread> pool;
    pool.reserve(helpers);
    for (std::size_t i = 0; i < helpers; ++i) pool.emplace_back(work);
    work();
  }
  const int code = error.load();
  if (code == 0) return {};
  if (page_size_ != PageSize::k4) {
    return failure(ExitStatus::memory,
                   fmt::format("cannot prefault guest memory of {}: {}", size_text(size_),
                               huge_page_remedy(page_size_, size_)));
  }
  return failure(ExitStatus::memory,
                 fmt::format("cannot prefault guest memory of {}: {}; lower memory, or set "
                             "prefault = \"off\"",
                             size_text(size_), std::strerror(code)));
}

}  // namespace outboard::vmm
