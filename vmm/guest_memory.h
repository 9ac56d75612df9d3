#pragma once

// Guest RAM: one sealed memfd of a fixed size, mapped once, shared with the device servers; several
// side by side where not every server may use all of it. One or two windows of guest-physical
// addresses (below the PCI hole, from 4 GiB up) show it to the guest and to the servers. Created on
// the main thread; its bytes are the guest's, and any thread may read and write them, as the
// guest's own vCPUs do at the same time.

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
  std::uint64_t file_offset = 0;  // in the memfd, or in all of them in their order
};

// One of the files that guest memory is kept in.
struct FilePlan {
  std::uint64_t offset = 0;  // in the whole of guest memory
  std::uint64_t size = 0;    // bytes
  bool writable = true;      // some server may write to it
  bool read_only = false;    // some server may only read it
};

class GuestMemory {
 public:
  // Makes and maps the memory of `windows`, which are in ascending order and cover the file without
  // a gap, as do `files` (see plan_files()); without these there is one file. That may be `given`
  // by somebody else (see check_memory_file()). Errors (ExitStatus::memory) name the size, what the
  // host has and the remedy.
  [[nodiscard]] static Result<GuestMemory> create(std::vector<RamWindow> windows,
                                                  PageSize page_size,
                                                  std::vector<FilePlan> files = {},
                                                  vfio_user::UniqueFd given = {});

  GuestMemory(GuestMemory&& other) noexcept;
  GuestMemory& operator=(GuestMemory&&) = delete;
  ~GuestMemory();

  [[nodiscard]] std::span<const RamWindow> windows() const { return windows_; }
  [[nodiscard]] std::uint64_t size() const { return size_; }  // bytes, all windows
  [[nodiscard]] std::span<const FilePlan> files() const { return files_; }
  // Of a file: for servers that may write to it.
  [[nodiscard]] int fd(std::size_t file = 0) const { return fds_[file].get(); }
  // Of a file with `read_only`: one that cannot be written to nor mapped so; -1 where the host
  // gives none (no /proc).
  [[nodiscard]] int read_only_fd(std::size_t file) const { return read_only_fds_[file].get(); }
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
  Result<void> make_files(std::vector<FilePlan> files, vfio_user::UniqueFd given);
  Result<void> seal_files();
  bool allocate(std::uint64_t from, std::uint64_t length) const;  // false: errno says why

  std::vector<FilePlan> files_;
  std::vector<vfio_user::UniqueFd> fds_;            // of files_
  std::vector<vfio_user::UniqueFd> read_only_fds_;  // of files_, each may be none
  std::vector<RamWindow> windows_;
  std::uint64_t size_ = 0;
  PageSize page_size_ = PageSize::k4;
  std::byte* base_ = nullptr;  // of all files, aligned to the page size and to 2 MiB
};

}  // namespace outboard::vmm
