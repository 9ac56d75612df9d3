#pragma once

// The in-kernel interrupt controller: a GICv3 and its ITS, made through KVM's device API
// (Linux Documentation/virt/kvm/devices/arm-vgic-v3.rst, arm-vgic-its.rst). Main thread, no vCPU
// running.

#include <cstdint>
#include <utility>

#include "vfio_user/unique_fd.h"
#include "vmm/error.h"
#include "vmm/vm.h"

namespace outboard::vmm::aarch64 {

class Gic {
 public:
  // Whether this host's KVM has them; the error (ExitStatus::no_kvm) says what to do.
  [[nodiscard]] static Result<void> require(const Vm& vm);

  // Makes both for a VM that has its `vcpus`: the redistributors are theirs, and initialising it
  // closes the door for more. Errors: ExitStatus::no_kvm.
  [[nodiscard]] static Result<Gic> create(const Vm& vm, std::uint32_t vcpus);

  // Back to power-on: no interrupt enabled, pending or active, no message translated.
  [[nodiscard]] Result<void> reset() const;

 private:
  Gic(vfio_user::UniqueFd gic, vfio_user::UniqueFd its, std::uint32_t vcpus)
      : gic_(std::move(gic)), its_(std::move(its)), vcpus_(vcpus) {}
  [[nodiscard]] Result<void> reset_vcpu(std::uint32_t index) const;

  vfio_user::UniqueFd gic_;
  vfio_user::UniqueFd its_;
  std::uint32_t vcpus_;
};

}  // namespace outboard::vmm::aarch64
