#pragma once

// Guest RAM: one sealed memfd of a fixed size, mapped once, shared with the device servers. One or
// two windows of guest-physical addresses (below the PCI hole, from 4 GiB up) show it to the guest
// and to the servers. Created on the main thread; its bytes are the guest's, and any thread may
// read and write them, as the guest's own vCPUs do at the same time.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vfio_user/unique_fd.h"
#include "vmm/error.h"
#include "vmm/machine_config.h"

namespace outboard::vmm {

// Where a part of the memfd appears in guest-physical address space. All three numbers are
// multiples of 2 MiB.
struct RamWindow {
  std::uint64_t address = 0;      // guest-physical
  std::uint64_t size = 0;         // bytes
  std::uint64_t file_offset = 0;  // in the memfd
};

class GuestMemory {
 public:
  // Makes and maps the memory of `windows`, which are in ascending order and cover the file without
  // a gap. Errors (ExitStatus::memory) name the size, what the host has and the remedy.
  [[nodiscard]] static Result<GuestMemory> create(std::vector<RamWindow> windows,
                                                  PageSize page_size);

  GuestMemory(GuestMemory&& other) noexcept;
  GuestMemory& operator=(GuestMemory&&) = delete;
  ~GuestMemory();

  [[nodiscard]] std::span<const RamWindow> windows() const { return windows_; }
  [[nodiscard]] std::uint64_t size() const { return size_; }  // bytes, all windows
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] PageSize page_size() const { return page_size_; }

  // The host's bytes of a window.
  [[nodiscard]] std::span<std::byte> bytes(const RamWindow& window) const;

  // The host's bytes of [address, address + size), or empty when that is not inside one window.
  [[nodiscard]] std::span<std::byte> at(std::uint64_t address, std::uint64_t size) const;

  // Makes every page of the memory present, on up to `threads` threads at once. Errors
  // (ExitStatus::memory): the host has not enough.
  [[nodiscard]] Result<void> populate(unsigned threads) const;

 private:
  GuestMemory() = default;

  vfio_user::UniqueFd fd_;
  std::vector<RamWindow> windows_;
  std::uint64_t size_ = 0;
  PageSize page_size_ = PageSize::k4;
  std::byte* base_ = nullptr;  // of the whole file, aligned to the page size and to 2 MiB
};

}  // namespace outboard::vmm
