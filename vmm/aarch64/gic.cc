#include "vmm/aarch64/gic.h"

#include <cstring>

#include <fmt/core.h>
#include <linux/kvm.h>

#include "vmm/aarch64/layout.h"
#include "vmm/aarch64/registers.h"
#include "vmm/kvm.h"

namespace outboard::vmm::aarch64 {
namespace {

// Registers of the distributor (GICv3 architecture, §12.8); `n` counts words.
namespace dist {
constexpr std::uint64_t kControl = 0x0000;
constexpr std::uint64_t kGroup = 0x0080;
constexpr std::uint64_t kClearEnable = 0x0180;
constexpr std::uint64_t kSetPending = 0x0200;
constexpr std::uint64_t kClearActive = 0x0380;
constexpr std::uint64_t kPriority = 0x0400;
constexpr std::uint64_t kConfiguration = 0x0c00;
constexpr std::uint64_t kRouting = 0x6000;
}  // namespace dist

// A redistributor (§12.10): its control, and the frame of its private interrupts, which has the
// distributor's registers of the same names.
namespace redist {
constexpr std::uint64_t kControl = 0x0000;
constexpr std::uint64_t kPrivateFrame = 0x1'0000;
}  // namespace redist

constexpr SystemRegister kPriorityMask{.crn = 4, .crm = 6};              // ICC_PMR_EL1
constexpr SystemRegister kBinaryPoint0{.crn = 12, .crm = 8, .op2 = 3};   // ICC_BPR0_EL1
constexpr SystemRegister kActive0{.crn = 12, .crm = 8, .op2 = 4};        // ICC_AP0R0_EL1
constexpr SystemRegister kActive1{.crn = 12, .crm = 9};                  // ICC_AP1R0_EL1
constexpr SystemRegister kBinaryPoint1{.crn = 12, .crm = 12, .op2 = 3};  // ICC_BPR1_EL1
constexpr SystemRegister kCpuControl{.crn = 12, .crm = 12, .op2 = 4};    // ICC_CTLR_EL1
constexpr SystemRegister kGroupEnable0{.crn = 12, .crm = 12, .op2 = 6};  // ICC_IGRPEN0_EL1
constexpr SystemRegister kGroupEnable1{.crn = 12, .crm = 12, .op2 = 7};  // ICC_IGRPEN1_EL1
constexpr std::uint64_t kCpuControlWritable = 0x3;  // EOImode, CBPR; the rest says what there is

template <class T>
int attribute(const vfio_user::UniqueFd& device, unsigned long request, std::uint32_t group,
              std::uint64_t number, T* value) {
  kvm_device_attr attr{};
  attr.group = group;
  attr.attr = number;
  attr.addr = reinterpret_cast<std::uint64_t>(value);
  return kvm_ioctl(device.get(), request, &attr);
}

int set(const vfio_user::UniqueFd& device, std::uint32_t group, std::uint64_t number,
        std::uint64_t value) {
  return attribute(device, KVM_SET_DEVICE_ATTR, group, number, &value);
}

// Registers of the distributor and the redistributors are read as 32 bits.
int set_word(const vfio_user::UniqueFd& device, std::uint32_t group, std::uint64_t number,
             std::uint32_t value) {
  return attribute(device, KVM_SET_DEVICE_ATTR, group, number, &value);
}

int order(const vfio_user::UniqueFd& device, std::uint64_t what) {
  return attribute<void>(device, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_CTRL, what, nullptr);
}

tl::unexpected<MachineError> refused(ExitStatus status, const std::string& what, int error) {
  return failure(status, fmt::format("KVM refuses {}: {}", what, std::strerror(-error)));
}

Result<vfio_user::UniqueFd> make_device(const Vm& vm, std::uint32_t type, const char* what) {
  kvm_create_device request{};
  request.type = type;
  if (const int result = kvm_ioctl(vm.fd(), KVM_CREATE_DEVICE, &request); result < 0) {
    return refused(ExitStatus::no_kvm, what, result);
  }
  return vfio_user::UniqueFd(static_cast<int>(request.fd));
}

bool has_device(const Vm& vm, std::uint32_t type) {
  kvm_create_device request{};
  request.type = type;
  request.flags = KVM_CREATE_DEVICE_TEST;
  return kvm_ioctl(vm.fd(), KVM_CREATE_DEVICE, &request) >= 0;
}

// The first step that fails ends a sequence and names itself.
class Steps {
 public:
  explicit Steps(ExitStatus status) : status_(status) {}
  void operator()(int result, const char* what) {
    if (result < 0 && outcome_) outcome_ = refused(status_, what, result);
  }
  [[nodiscard]] Result<void> outcome() const { return outcome_; }

 private:
  ExitStatus status_;
  Result<void> outcome_;
};

// ICFGR with 0b10 for each interrupt: edge-triggered, as KVM's SPIs are at power-on.
constexpr std::uint32_t kAllEdge = 0xaaaa'aaaa;

}  // namespace

Result<void> Gic::require(const Vm& vm) {
  if (!has_device(vm, KVM_DEV_TYPE_ARM_VGIC_V3)) {
    return failure(ExitStatus::no_kvm,
                   "this host's KVM has no GICv3 (its interrupt controller is older, or its "
                   "firmware hides it); use a host with a GICv3");
  }
  if (!has_device(vm, KVM_DEV_TYPE_ARM_VGIC_ITS)) {
    return failure(ExitStatus::no_kvm,
                   "this host's KVM has no GICv3 ITS, which message-signalled interrupts need; use "
                   "Linux 4.8 or newer");
  }
  return {};
}

Result<Gic> Gic::create(const Vm& vm, std::uint32_t vcpus) {
  auto gic = make_device(vm, KVM_DEV_TYPE_ARM_VGIC_V3, "a GICv3");
  if (!gic) return tl::unexpected(gic.error());
  Steps step(ExitStatus::no_kvm);
  std::uint32_t interrupts = kInterrupts;
  step(set(*gic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, kDistributor),
       "the place of the GIC's distributor");
  step(set(*gic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, kRedistributors),
       "the place of the GIC's redistributors");
  step(attribute(*gic, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &interrupts),
       "the number of the GIC's interrupts");
  step(order(*gic, KVM_DEV_ARM_VGIC_CTRL_INIT), "to initialise the GIC");
  if (auto done = step.outcome(); !done) return tl::unexpected(done.error());

  auto its = make_device(vm, KVM_DEV_TYPE_ARM_VGIC_ITS, "an ITS");
  if (!its) return tl::unexpected(its.error());
  step(set(*its, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_ITS_ADDR_TYPE, kIts), "the place of the ITS");
  step(order(*its, KVM_DEV_ARM_VGIC_CTRL_INIT), "to initialise the ITS");
  if (auto done = step.outcome(); !done) return tl::unexpected(done.error());
  return Gic(std::move(*gic), std::move(*its), vcpus);
}

// KVM has no reset of a GIC. A write from user space of a set-pending register is the state itself,
// one of a clear register clears (arm-vgic-v3.rst).
Result<void> Gic::reset() const {
  Steps step(ExitStatus::internal_error);
  const auto word = [&](std::uint64_t offset, std::uint32_t value) {
    step(set_word(gic_, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, offset, value),
         "to reset the GIC's distributor");
  };
  word(dist::kControl, 0);
  for (std::uint64_t n = kPrivateInterrupts / 32; n < kInterrupts / 32; ++n) {
    word(dist::kClearEnable + 4 * n, ~0U);
    word(dist::kSetPending + 4 * n, 0);
    word(dist::kClearActive + 4 * n, ~0U);
    word(dist::kGroup + 4 * n, 0);
  }
  for (std::uint64_t n = kPrivateInterrupts / 4; n < kInterrupts / 4; ++n) {
    word(dist::kPriority + 4 * n, 0);
  }
  for (std::uint64_t n = kPrivateInterrupts / 16; n < kInterrupts / 16; ++n) {
    word(dist::kConfiguration + 4 * n, kAllEdge);
  }
  for (std::uint64_t n = kPrivateInterrupts; n < kInterrupts; ++n) {
    word(dist::kRouting + 8 * n, 0);
    word(dist::kRouting + 8 * n + 4, 0);
  }
  if (auto done = step.outcome(); !done) return done;
  for (std::uint32_t i = 0; i < vcpus_; ++i) {
    if (auto done = reset_vcpu(i); !done) return done;
  }
  step(order(its_, KVM_DEV_ARM_ITS_CTRL_RESET), "to reset the ITS");
  return step.outcome();
}

Result<void> Gic::reset_vcpu(std::uint32_t index) const {
  Steps step(ExitStatus::internal_error);
  const std::uint64_t cpu = affinity(index) << KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT;
  const auto word = [&](std::uint64_t offset, std::uint32_t value) {
    step(set_word(gic_, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, cpu | offset, value),
         "to reset a GIC redistributor");
  };
  word(redist::kControl, 0);  // messages off: the tables they are in are memory again
  word(redist::kPrivateFrame + dist::kClearEnable, ~0U);
  word(redist::kPrivateFrame + dist::kSetPending, 0);
  word(redist::kPrivateFrame + dist::kClearActive, ~0U);
  word(redist::kPrivateFrame + dist::kGroup, 0);
  for (std::uint64_t n = 0; n < kPrivateInterrupts / 4; ++n) {
    word(redist::kPrivateFrame + dist::kPriority + 4 * n, 0);
  }

  const auto system = [&](SystemRegister which, std::uint64_t value) {
    step(set(gic_, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, cpu | which.encoding(), value),
         "to reset a GIC CPU interface");
  };
  std::uint64_t control = 0;
  step(attribute(gic_, KVM_GET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
                 cpu | kCpuControl.encoding(), &control),
       "to show a GIC CPU interface");
  system(kCpuControl, control & ~kCpuControlWritable);
  for (const SystemRegister which : {kPriorityMask, kBinaryPoint0, kBinaryPoint1, kActive0,
                                     kActive1, kGroupEnable0, kGroupEnable1}) {
    system(which, 0);
  }
  return step.outcome();
}

}  // namespace outboard::vmm::aarch64
