#pragma once

// Memory that processes share: a memfd and its mapping here. Moves; one owner.

#include <cstddef>
#include <new>
#include <span>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

#include "vfio_user/unique_fd.h"

namespace outboard::bench {

class SharedMemory {
 public:
  SharedMemory() = default;
  // Zeros. Throws std::bad_alloc.
  explicit SharedMemory(std::size_t size) : fd_(::memfd_create("outboard-bench", MFD_CLOEXEC)) {
    if (!fd_ || ::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) throw std::bad_alloc();
    void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    bytes_ = {static_cast<std::byte*>(at), size};
  }
  SharedMemory(SharedMemory&& other) noexcept
      : fd_(std::move(other.fd_)), bytes_(std::exchange(other.bytes_, {})) {}
  SharedMemory& operator=(SharedMemory&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~SharedMemory() {
    if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
  }

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }
  template <class T>
  [[nodiscard]] T& at(std::size_t offset) const {
    return *reinterpret_cast<T*>(bytes_.data() + offset);
  }

 private:
  vfio_user::UniqueFd fd_;
  std::span<std::byte> bytes_;
};

}  // namespace outboard::bench
