#include <array>

#include <linux/kvm.h>

#include "vmm/arch.h"

namespace outboard::vmm::arch {

std::span<const unsigned long> state_requests() {
  static constexpr std::array<unsigned long, 5> kRequests = {
      // cpus.cc
      KVM_ARM_VCPU_INIT,
      // registers.cc
      KVM_SET_ONE_REG,
      KVM_GET_ONE_REG,
      // gic.cc
      KVM_SET_DEVICE_ATTR,
      KVM_GET_DEVICE_ATTR,
  };
  return kRequests;
}

}  // namespace outboard::vmm::arch
