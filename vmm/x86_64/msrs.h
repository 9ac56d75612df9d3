#pragma once

// Model-specific registers of a vCPU, read in bulk. Main thread, no vCPU running.

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "vmm/kvm.h"
#include "vmm/vcpu.h"

namespace outboard::vmm::x86_64 {

struct MsrValue {
  std::uint32_t index = 0;
  std::uint64_t value = 0;
};

// The MSRs this KVM saves and restores.
[[nodiscard]] std::vector<std::uint32_t> msr_indexes(const Kvm& kvm);

// The values of those of `indexes` that the vCPU has.
[[nodiscard]] std::map<std::uint32_t, std::uint64_t> read_msrs(
    const Vcpu& vcpu, std::span<const std::uint32_t> indexes);

// 0 or -errno (-EINVAL: the vCPU has no such MSR or refuses the value).
[[nodiscard]] int write_msr(const Vcpu& vcpu, const MsrValue& msr);

}  // namespace outboard::vmm::x86_64
