// Memory for transfers that cannot use guest memory itself: page-aligned, kept while small.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>
#include <span>

namespace outboard::nvme {

class AlignedBuffer {
 public:
  // At least `size` bytes, their content undefined.
  std::span<std::byte> acquire(std::size_t size) {
    if (size > capacity_) {
      const std::size_t rounded = (size + kAlignment - 1) / kAlignment * kAlignment;
      bytes_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded)));
      capacity_ = bytes_ ? rounded : 0;
      if (!bytes_) throw std::bad_alloc();
    }
    used_ = size;
    return {bytes_.get(), size};
  }
  std::span<std::byte> bytes() const { return {bytes_.get(), used_}; }
  // Gives back what is too large to keep in every idle request.
  void release() {
    used_ = 0;
    if (capacity_ > kKeep) {
      bytes_.reset();
      capacity_ = 0;
    }
  }

 private:
  static constexpr std::size_t kAlignment = 4096;
  static constexpr std::size_t kKeep = 4096;
  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };
  std::unique_ptr<std::byte, Free> bytes_;
  std::size_t capacity_ = 0;
  std::size_t used_ = 0;
};

}  // namespace outboard::nvme
