// The doorbell registers (§3.1.24): one page of memory at offset 1000h of a file as large as BAR0.
// With a mapped page the guest stores there with no exit; with trapped doorbells the owner stores
// what a message brought. Either way the controller reads them here.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include <tl/expected.hpp>

#include "tools/nvme/state.h"
#include "vfio_user/unique_fd.h"

namespace outboard::nvme {

inline constexpr u64 kBar0Size = 0x4000;
inline constexpr u64 kDoorbellPageSize = 0x1000;

class Doorbells {
 public:
  static tl::expected<std::unique_ptr<Doorbells>, std::string> create();
  // The page at offset 1000h of a file that has at least kBar0Size bytes; it keeps what is there.
  static tl::expected<std::unique_ptr<Doorbells>, std::string> over(vfio_user::UniqueFd file);
  ~Doorbells();
  Doorbells(const Doorbells&) = delete;
  Doorbells& operator=(const Doorbells&) = delete;

  // The file (a sealed memfd of kBar0Size bytes, if it is our own), of which [1000h, 2000h) is the
  // doorbell page.
  int fd() const { return fd_.get(); }

  u32 sq_tail(u16 queue) const { return load(2u * queue); }
  u32 cq_head(u16 queue) const { return load(2u * queue + 1); }
  void clear_sq(u16 queue) { store(2u * queue, 0); }
  void clear_cq(u16 queue) { store(2u * queue + 1, 0); }
  void clear_all();

  // A doorbell by its index in the page, below kDoorbellPageSize / 4.
  u32 load(u32 index) const {
    return std::atomic_ref<u32>(words_[index]).load(std::memory_order_acquire);
  }
  void store(u32 index, u32 value) {
    std::atomic_ref<u32>(words_[index]).store(value, std::memory_order_release);
  }

 private:
  Doorbells(vfio_user::UniqueFd fd, std::byte* base)
      : fd_(std::move(fd)), base_(base), words_(reinterpret_cast<u32*>(base + reg::doorbells)) {}

  vfio_user::UniqueFd fd_;
  std::byte* base_;  // of the file
  u32* words_;       // of the page
};

}  // namespace outboard::nvme
