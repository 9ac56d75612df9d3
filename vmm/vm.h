#pragma once

// One virtual machine of KVM: the VM descriptor and the ioctls on it, each with the kernel's error
// as -errno. Created on the main thread; every member may be called from any thread (KVM serialises
// what must be).

#include <cstddef>
#include <cstdint>
#include <utility>

#include <linux/kvm.h>

#include "vfio_user/unique_fd.h"

namespace outboard::vmm {

class Vm {
 public:
  explicit Vm(vfio_user::UniqueFd fd) : fd_(std::move(fd)) {}

  [[nodiscard]] int fd() const { return fd_.get(); }

  // KVM_CHECK_EXTENSION of the VM: 0 when the capability is absent.
  [[nodiscard]] int capability(int number) const;

  // KVM_SET_USER_MEMORY_REGION. `size` 0 deletes the slot. 0 or -errno.
  [[nodiscard]] int set_memory(std::uint32_t slot, std::uint64_t address, std::byte* host,
                               std::uint64_t size, bool writable) const;

  // KVM_IRQFD: `resample_fd` -1 for an edge. 0 or -errno.
  [[nodiscard]] int assign_irqfd(int fd, std::uint32_t gsi, int resample_fd) const;
  [[nodiscard]] int deassign_irqfd(int fd, std::uint32_t gsi) const;

  // KVM_IRQ_LINE of a pin of the interrupt controller. 0 or -errno.
  [[nodiscard]] int set_line(std::uint32_t gsi, bool level) const;

 private:
  vfio_user::UniqueFd fd_;
};

}  // namespace outboard::vmm
