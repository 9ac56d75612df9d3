#pragma once

// Registers of a vCPU by number (KVM_GET_ONE_REG, KVM_SET_ONE_REG). Main thread, no vCPU running.

#include <cstddef>
#include <cstdint>
#include <optional>

#include <linux/kvm.h>

#include "vmm/vcpu.h"

namespace outboard::vmm::aarch64 {

// A register of 64 bits by its offset in struct kvm_regs.
[[nodiscard]] constexpr std::uint64_t core_register(std::size_t offset) {
  return KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | (offset / sizeof(std::uint32_t));
}
constexpr std::size_t kCoreRegisters = offsetof(kvm_regs, regs);
constexpr std::uint64_t kStackPointer = core_register(kCoreRegisters + offsetof(user_pt_regs, sp));
constexpr std::uint64_t kProgramCounter =
    core_register(kCoreRegisters + offsetof(user_pt_regs, pc));
constexpr std::uint64_t kProcessorState =
    core_register(kCoreRegisters + offsetof(user_pt_regs, pstate));
constexpr std::uint64_t kStackPointerEl1 = core_register(offsetof(kvm_regs, sp_el1));
constexpr std::uint64_t kReturnAddressEl1 = core_register(offsetof(kvm_regs, elr_el1));
constexpr std::uint64_t kSavedStateEl1 = core_register(offsetof(kvm_regs, spsr));
// X0 .. X30.
[[nodiscard]] constexpr std::uint64_t general_register(unsigned number) {
  return core_register(kCoreRegisters + offsetof(user_pt_regs, regs) +
                       number * sizeof(std::uint64_t));
}

// How an instruction names a system register (Arm ARM, C5.1.2).
struct SystemRegister {
  std::uint32_t op0 = 3;
  std::uint32_t op1 = 0;
  std::uint32_t crn = 0;
  std::uint32_t crm = 0;
  std::uint32_t op2 = 0;

  // op0, op1, CRn, CRm, op2 in 16 bits, as KVM's register numbers and the GIC's attributes have it.
  [[nodiscard]] constexpr std::uint64_t encoding() const {
    return std::uint64_t{op0} << 14 | op1 << 11 | crn << 7 | crm << 3 | op2;
  }
  [[nodiscard]] constexpr std::uint64_t number() const {
    return KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG | encoding();
  }
};

// None: the vCPU has no such register.
[[nodiscard]] std::optional<std::uint64_t> read_register(const Vcpu& vcpu, std::uint64_t number);
// 0 or -errno.
[[nodiscard]] int write_register(const Vcpu& vcpu, std::uint64_t number, std::uint64_t value);

}  // namespace outboard::vmm::aarch64
