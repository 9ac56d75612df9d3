#include <array>

#include <linux/kvm.h>

#include "vmm/arch.h"
#include "vmm/kvm_abi.h"

namespace outboard::vmm::arch {

std::span<const unsigned long> state_requests() {
  static constexpr std::array<unsigned long, 17> kRequests = {
      // irqchip.cc
      KVM_SET_IRQCHIP,
      // vcpu_state.cc and msrs.cc
      KVM_SET_SREGS,
      KVM_SET_LAPIC,
      abi::kSetXsave,
      KVM_SET_DEBUGREGS,
      KVM_SET_XCRS,
      abi::kGetMsrs,
      abi::kSetMsrs,
      KVM_SET_VCPU_EVENTS,
      KVM_SET_MP_STATE,
      KVM_SET_REGS,
      // cpus.cc
      KVM_GET_SREGS,
      // register_dump.cc
      KVM_TRANSLATE,
      KVM_GET_REGS,
      KVM_GET_MP_STATE,
      // An application processor that has not been started is asked for none.
      KVM_GET_VCPU_EVENTS,
      KVM_GET_LAPIC,
  };
  return kRequests;
}

}  // namespace outboard::vmm::arch
