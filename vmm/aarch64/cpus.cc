// The vCPUs of the arm64 machine, and the host's CPU: capabilities, power-on state, entry.

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include <fmt/core.h>

#include "devices/host_page.h"
#include "vmm/aarch64/gic.h"
#include "vmm/aarch64/host_pages.h"
#include "vmm/aarch64/layout.h"
#include "vmm/aarch64/registers.h"
#include "vmm/arch.h"

namespace outboard::vmm::arch {
namespace {

constexpr std::array<RequiredCapability, 11> kRequired{{
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY", "guest memory"},
    {KVM_CAP_ONE_REG, "KVM_CAP_ONE_REG", "registers"},
    {KVM_CAP_ARM_PSCI_0_2, "KVM_CAP_ARM_PSCI_0_2", "several vCPUs, reset and power-off"},
    {KVM_CAP_DEVICE_CTRL, "KVM_CAP_DEVICE_CTRL", "interrupt controllers"},
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP", "interrupt controllers"},
    {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING", "message-signalled interrupts"},
    {KVM_CAP_IRQFD, "KVM_CAP_IRQFD", "interrupts from device servers"},
    {KVM_CAP_IRQFD_RESAMPLE, "KVM_CAP_IRQFD_RESAMPLE", "level-triggered interrupts"},
    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD", "doorbells"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT", "stopping vCPUs without a race"},
    {KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM", "read-only pages of device servers"},
}};

// A guest's EL1 with its stack pointer, D, A, I and F masked: as the boot protocol has it.
constexpr std::uint64_t kEntryState = 0x3c5;

// What a KVM that does not say gives, and what the machine takes at most.
constexpr unsigned kDefaultAddressBits = 40;
static_assert(aarch64::kMostAddressBits == kDefaultAddressBits);

tl::unexpected<MachineError> refused(const std::string& what, int error) {
  return failure(ExitStatus::no_kvm,
                 fmt::format("KVM refuses {}: {}", what, std::strerror(-error)));
}

class Arm64HostCpu final : public HostCpu {
 public:
  explicit Arm64HostCpu(unsigned bits) : bits_(bits) {}
  unsigned physical_address_bits() const override { return bits_; }
  unsigned long vm_type() const override {
    return bits_ == kDefaultAddressBits ? 0 : KVM_VM_TYPE_ARM_IPA_SIZE(bits_);
  }

 private:
  const unsigned bits_;
};

class Arm64Cpus final : public Cpus {
 public:
  Arm64Cpus(kvm_vcpu_init init, aarch64::Gic gic) : init_(init), gic_(std::move(gic)) {}

  // KVM_ARM_VCPU_INIT sets a vCPU back, its timers too, and forgets the guest's view of memory.
  Result<void> set_up(std::span<Vcpu> vcpus) const { return set_up(vcpus, init_); }
  static Result<void> set_up(std::span<Vcpu> vcpus, const kvm_vcpu_init& all) {
    for (const Vcpu& vcpu : vcpus) {
      kvm_vcpu_init init = all;
      // The others wait for the first one's PSCI CPU_ON.
      if (vcpu.index() != 0) init.features[0] |= 1U << KVM_ARM_VCPU_POWER_OFF;
      if (const int result = kvm_ioctl(vcpu.fd(), KVM_ARM_VCPU_INIT, &init); result < 0) {
        return refused(fmt::format("to set up vCPU {}", vcpu.index()), result);
      }
    }
    return {};
  }

  Result<void> reset(std::span<Vcpu> vcpus) override {
    if (auto done = gic_.reset(); !done) return done;
    return set_up(vcpus);
  }

  Result<void> enter(Vcpu& vcpu, const boot::EntryState& entry) override {
    using namespace aarch64;
    const std::pair<std::uint64_t, std::uint64_t> values[] = {
        {kProcessorState, kEntryState},    {kProgramCounter, entry.rip},
        {general_register(0), entry.info}, {general_register(1), 0},
        {general_register(2), 0},          {general_register(3), 0},
    };
    for (const auto& [number, value] : values) {
      if (const int result = write_register(vcpu, number, value); result < 0) {
        return failure(
            ExitStatus::internal_error,
            fmt::format("KVM refuses the kernel's entry state: {}", std::strerror(-result)));
      }
    }
    return {};
  }

  std::string description() const override { return "architected timer"; }

 private:
  const kvm_vcpu_init init_;
  const aarch64::Gic gic_;
};

}  // namespace

std::span<const RequiredCapability> required_capabilities() {
  return kRequired;
}

std::string_view kvm_remedy() {
  return "use a host whose kernel was started at EL2 (its firmware decides that) and has KVM, or, "
         "inside a virtual machine, turn on nested virtualization on its host";
}

std::uint32_t irq_line(std::uint32_t gsi) {
  return KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | (gsi + aarch64::kPrivateInterrupts);
}

Result<std::unique_ptr<const HostCpu>> HostCpu::ask(const Kvm& kvm) {
  if (auto fit = aarch64::check_host_pages(devices::host_page()); !fit) {
    return tl::unexpected(fit.error());
  }
  const int bits = kvm.capability(KVM_CAP_ARM_VM_IPA_SIZE);
  return std::make_unique<const Arm64HostCpu>(
      bits == 0 ? kDefaultAddressBits
                : std::min(static_cast<unsigned>(bits), aarch64::kMostAddressBits));
}

Result<void> prepare_vm(const Vm& vm) {
  return aarch64::Gic::require(vm);
}

Result<std::unique_ptr<Cpus>> Cpus::create(const Kvm& /*kvm*/, const HostCpu& /*host*/,
                                           const Vm& vm, std::span<Vcpu> vcpus) {
  kvm_vcpu_init init{};
  if (const int result = kvm_ioctl(vm.fd(), KVM_ARM_PREFERRED_TARGET, &init); result < 0) {
    return refused("to name the kind of its vCPUs", result);
  }
  init.features[0] |= 1U << KVM_ARM_VCPU_PSCI_0_2;
  if (auto done = Arm64Cpus::set_up(vcpus, init); !done) return tl::unexpected(done.error());
  auto gic = aarch64::Gic::create(vm, static_cast<std::uint32_t>(vcpus.size()));
  if (!gic) return tl::unexpected(gic.error());
  return std::make_unique<Arm64Cpus>(init, std::move(*gic));
}

}  // namespace outboard::vmm::arch
