#pragma once

// What the guest starts from: the kernel and initrd files, the command line, the tables that
// describe the machine. Owned by the machine; kept open, so that a machine reset loads the same
// files again even if their paths have gone. Main thread.

#include <cstdint>
#include <optional>
#include <string>

#include "boot/start.h"
#include "vfio_user/unique_fd.h"
#include "vmm/arch.h"
#include "vmm/error.h"
#include "vmm/guest_memory.h"
#include "vmm/kernel_cache.h"
#include "vmm/machine_config.h"

namespace outboard::vmm {

class GuestImage {
 public:
  // Opens the files of `config`. Errors (ExitStatus::boot_image,
  // ExitStatus::configuration) name the path or the key and the remedy.
  [[nodiscard]] static Result<GuestImage> open(const MachineConfig& config);

  // Writes the kernel alone into guest memory: the long part, which needs to know nothing else of
  // the machine. No vCPU runs and no device writes to memory. Errors: ExitStatus::boot_image.
  [[nodiscard]] Result<void> load_kernel(const GuestMemory& memory);

  // Writes initrd, command line and what describes the machine around the kernel, which
  // load_kernel() loaded. Of `guest`, command line and initrd are the image's own. Errors:
  // ExitStatus::boot_image.
  [[nodiscard]] Result<boot::EntryState> load_rest(const GuestMemory& memory,
                                                   const arch::MemoryLayout& layout,
                                                   arch::GuestDescription guest);

  // Both.
  [[nodiscard]] Result<boot::EntryState> load(const GuestMemory& memory,
                                              const arch::MemoryLayout& layout,
                                              const arch::GuestDescription& guest);

 private:
  GuestImage() = default;

  std::string kernel_path_;
  std::string initrd_path_;  // empty: none
  vfio_user::UniqueFd kernel_;
  vfio_user::UniqueFd initrd_;
  std::string command_line_;
  boot::Entry entry_ = boot::Entry::automatic;
  bool keep_unpacked_ = false;
  bool prefault_first_ = false;       // what a kernel takes first (first_pages.h)
  std::optional<KernelCache> cache_;  // of a packed kernel, from the first load_kernel() on
  boot::LoadedKernel loaded_;         // by load_kernel()
  bool said_ = false;                 // what the loader decided has been logged
};

}  // namespace outboard::vmm
