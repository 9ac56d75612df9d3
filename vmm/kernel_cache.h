#pragma once

// Unpacked kernels, kept in the user's cache folder ($XDG_CACHE_HOME/outboard/kernels, else
// ~/.cache/outboard/kernels), so that the next start from the same bzImage only copies.
//
// A kept file belongs to one kernel file as it was (device, inode, size, times of change) in one
// uptime of the host: a host that crashed may have lost what was written, so after a reboot the
// kernel is unpacked again. Files are made under another name and renamed. At most kKept of them
// stay. One that others could have written is not used. Owned by the GuestImage; main thread.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "boot/unpacked_store.h"
#include "vfio_user/unique_fd.h"
#include "vmm/mapped_file.h"

namespace outboard::vmm {

class KernelCache final : public boot::UnpackedStore {
 public:
  static constexpr std::size_t kKept = 4;

  // The user's folder, made where it is missing; empty if there is none or it is not the user's.
  [[nodiscard]] static std::string user_folder();

  // For the kernel file open at `kernel`, in `folder`. An empty folder keeps nothing. What is found
  // or kept stays open, so that a guest's reboot needs no path.
  KernelCache(std::string folder, int kernel);

  [[nodiscard]] std::span<const std::byte> find() override;
  void keep(std::span<const std::byte> unpacked) override;
  void forget_mapping() { mapped_ = {}; }

 private:
  void make_room() const;

  std::string folder_;
  std::string name_;     // of the kernel's file in folder_; empty: keep nothing
  bool looked_ = false;  // once is enough: later no path may be within reach any more
  bool tried_ = false;   // likewise to keep it
  vfio_user::UniqueFd file_;
  MappedFile mapped_;
};

}  // namespace outboard::vmm
