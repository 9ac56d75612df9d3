#pragma once

// The power-on state of a vCPU, read from a vCPU that has never run, and written back at a machine
// reset. Main thread, no vCPU running.

#include <cstdint>
#include <map>
#include <vector>

#include <linux/kvm.h>

#include "vmm/error.h"
#include "vmm/kvm.h"
#include "vmm/kvm_abi.h"
#include "vmm/vcpu.h"

namespace outboard::vmm::x86_64 {

class VcpuState {
 public:
  // The state of `vcpu`, the first one; the others differ only in APIC id and the boot flag.
  [[nodiscard]] static Result<VcpuState> capture(const Kvm& kvm, const Vcpu& vcpu);

  // Writes it to any vCPU of the same VM. The first one becomes runnable, the others wait for INIT.
  // The time stamp counter runs on.
  [[nodiscard]] Result<void> restore(const Vcpu& vcpu) const;

 private:
  VcpuState() = default;

  kvm_regs regs_{};
  kvm_sregs sregs_{};
  abi::XsaveArea xsave_{};
  kvm_xcrs xcrs_{};
  kvm_debugregs debug_{};
  kvm_vcpu_events events_{};
  kvm_lapic_state lapic_{};
  std::map<std::uint32_t, std::uint64_t> msrs_;  // by index
};

}  // namespace outboard::vmm::x86_64
