#include "vmm/x86_64/vcpu_state.h"

#include <cstring>
#include <span>

#include <fmt/core.h>

#include "vmm/x86_64/msrs.h"

namespace outboard::vmm::x86_64 {
namespace {

constexpr std::uint64_t kApicBaseBootCpu = std::uint64_t{1} << 8;
constexpr std::size_t kApicIdRegister = 0x20;

// Left alone by a reset: the counter runs on.
constexpr std::uint32_t kMsrTsc = 0x10;
// Written last: it arms a timer of the local APIC.
constexpr std::uint32_t kMsrTscDeadline = 0x6e0;

tl::unexpected<MachineError> refused(const char* what, const Vcpu& vcpu, int error) {
  return failure(ExitStatus::internal_error, fmt::format("KVM refuses the {} of vCPU {}: {}", what,
                                                         vcpu.index(), std::strerror(-error)));
}

}  // namespace

Result<VcpuState> VcpuState::capture(const Kvm& kvm, const Vcpu& vcpu) {
  VcpuState state;
  const int fd = vcpu.fd();
  const struct {
    const char* what;
    int result;
  } reads[] = {
      {"registers", kvm_ioctl(fd, KVM_GET_REGS, &state.regs_)},
      {"system registers", kvm_ioctl(fd, KVM_GET_SREGS, &state.sregs_)},
      {"floating-point state", kvm_ioctl(fd, abi::kGetXsave, &state.xsave_)},
      {"extended control registers", kvm_ioctl(fd, KVM_GET_XCRS, &state.xcrs_)},
      {"debug registers", kvm_ioctl(fd, KVM_GET_DEBUGREGS, &state.debug_)},
      {"pending events", kvm_ioctl(fd, KVM_GET_VCPU_EVENTS, &state.events_)},
      {"local APIC", kvm_ioctl(fd, KVM_GET_LAPIC, &state.lapic_)},
  };
  for (const auto& read : reads) {
    if (read.result < 0) return refused(read.what, vcpu, read.result);
  }
  auto indexes = msr_indexes(kvm);
  std::erase(indexes, kMsrTsc);
  state.msrs_ = read_msrs(vcpu, indexes);
  return state;
}

Result<void> VcpuState::restore(const Vcpu& vcpu) const {
  const int fd = vcpu.fd();
  const bool first = vcpu.index() == 0;

  kvm_sregs sregs = sregs_;
  sregs.apic_base =
      first ? sregs.apic_base | kApicBaseBootCpu : sregs.apic_base & ~kApicBaseBootCpu;
  kvm_lapic_state lapic = lapic_;
  const std::uint32_t id = vcpu.index() << 24;
  std::memcpy(lapic.regs + kApicIdRegister, &id, sizeof(id));
  abi::XsaveArea xsave = xsave_;
  kvm_xcrs xcrs = xcrs_;
  kvm_debugregs debug = debug_;
  kvm_vcpu_events events = events_;
  events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR;
  kvm_regs regs = regs_;
  kvm_mp_state mp{};
  mp.mp_state = first ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED;

  // The system registers turn the local APIC on before its registers are written; its timer comes
  // after it; the run state is last but for the registers.
  struct Step {
    const char* what;
    unsigned long request;
    void* argument;
  };
  const auto write = [&](std::span<const Step> steps) -> Result<void> {
    for (const Step& step : steps) {
      const int result =
          kvm_ioctl(fd, step.request, reinterpret_cast<unsigned long>(step.argument));
      if (result < 0) return refused(step.what, vcpu, result);
    }
    return {};
  };
  const Step before[] = {
      {"system registers", KVM_SET_SREGS, &sregs},
      {"local APIC", KVM_SET_LAPIC, &lapic},
      {"floating-point state", abi::kSetXsave, &xsave},
      {"debug registers", KVM_SET_DEBUGREGS, &debug},
  };
  if (auto done = write(before); !done) return done;
  // A processor without XSAVE has none, and KVM then refuses to set them.
  const Step extended[] = {{"extended control registers", KVM_SET_XCRS, &xcrs}};
  if (xcrs.nr_xcrs != 0) {
    if (auto done = write(extended); !done) return done;
  }

  // Only what the guest changed: some MSRs refuse even their own value.
  std::vector<std::uint32_t> indexes;
  for (const auto& [index, value] : msrs_) indexes.push_back(index);
  std::vector<MsrValue> changed;
  for (const auto& [index, value] : read_msrs(vcpu, indexes)) {
    const std::uint64_t initial = msrs_.at(index);
    if (value != initial && index != kMsrTscDeadline) changed.push_back({index, initial});
  }
  if (msrs_.contains(kMsrTscDeadline)) changed.push_back({kMsrTscDeadline, 0});
  for (const MsrValue& msr : changed) {
    if (const int result = write_msr(vcpu, msr); result < 0) {
      return failure(ExitStatus::internal_error,
                     fmt::format("KVM refuses to reset MSR {:#x} of vCPU {} to {:#x}: {}",
                                 msr.index, vcpu.index(), msr.value, std::strerror(-result)));
    }
  }

  const Step after[] = {
      {"pending events", KVM_SET_VCPU_EVENTS, &events},
      {"run state", KVM_SET_MP_STATE, &mp},
      {"registers", KVM_SET_REGS, &regs},
  };
  return write(after);
}

}  // namespace outboard::vmm::x86_64
