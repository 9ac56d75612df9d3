// The VM before its first vCPU: KVM's own pages and the full in-kernel irqchip, with no PIT. GSIs
// 0..23 are the pins of the IOAPIC; nothing is routed to the PICs, which no guest of this machine
// looks for.

#include "vmm/x86_64/irqchip.h"

#include <array>
#include <cstring>

#include <fmt/core.h>

#include "vmm/arch.h"
#include "vmm/x86_64/layout.h"

namespace outboard::vmm {
namespace {

constexpr std::array<RequiredCapability, 14> kRequired{{
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY", "guest memory"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR", "real mode on Intel hosts"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID", "CPUID"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE", "several vCPUs and reset"},
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP", "interrupt controllers"},
    {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING", "message-signalled interrupts"},
    {KVM_CAP_IRQFD, "KVM_CAP_IRQFD", "interrupts from device servers"},
    {KVM_CAP_IRQFD_RESAMPLE, "KVM_CAP_IRQFD_RESAMPLE", "level-triggered interrupts"},
    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD", "doorbells"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS", "reset"},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS", "reset"},
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE", "reset"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT", "stopping vCPUs without a race"},
    {KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM", "read-only pages of device servers"},
}};

tl::unexpected<MachineError> refused(const char* what, int error) {
  return failure(ExitStatus::no_kvm,
                 fmt::format("KVM refuses {}: {}", what, std::strerror(-error)));
}

}  // namespace

namespace arch {

std::span<const RequiredCapability> required_capabilities() {
  return kRequired;
}

std::string_view kvm_remedy() {
  return "load the kvm-amd or kvm-intel module ('modprobe kvm-amd'), enable virtualization in the "
         "firmware, or, inside a virtual machine, turn on nested virtualization on its host";
}

Result<void> prepare_vm(const Vm& vm) {
  std::uint64_t identity = x86_64::kIdentityMapAddress;
  if (const int result = kvm_ioctl(vm.fd(), KVM_SET_IDENTITY_MAP_ADDR, &identity); result < 0) {
    return refused("the identity map page", result);
  }
  if (const int result =
          kvm_ioctl(vm.fd(), KVM_SET_TSS_ADDR, static_cast<unsigned long>(x86_64::kTssAddress));
      result < 0) {
    return refused("the task state pages", result);
  }
  if (const int result = kvm_ioctl(vm.fd(), KVM_CREATE_IRQCHIP); result < 0) {
    return refused("an in-kernel interrupt controller", result);
  }
  return {};
}

std::vector<kvm_irq_routing_entry> fixed_routes() {
  std::vector<kvm_irq_routing_entry> routes;
  for (std::uint32_t pin = 0; pin < x86_64::kIoapicPins; ++pin) {
    kvm_irq_routing_entry entry{};
    entry.gsi = pin;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
    entry.u.irqchip.pin = pin;
    routes.push_back(entry);
  }
  return routes;
}

std::uint32_t first_msi_gsi() {
  return x86_64::kIoapicPins;
}

std::uint32_t irq_line(std::uint32_t gsi) {
  return gsi;
}

}  // namespace arch

namespace x86_64 {

Result<IrqchipState> IrqchipState::capture(const Vm& vm) {
  IrqchipState state;
  for (std::size_t i = 0; i < state.chips_.size(); ++i) {
    state.chips_[i].chip_id = static_cast<std::uint32_t>(i);
    if (const int result = kvm_ioctl(vm.fd(), KVM_GET_IRQCHIP, &state.chips_[i]); result < 0) {
      return refused("to show the interrupt controllers", result);
    }
  }
  return state;
}

Result<void> IrqchipState::restore(const Vm& vm) const {
  for (const kvm_irqchip& chip : chips_) {
    kvm_irqchip copy = chip;
    if (const int result = kvm_ioctl(vm.fd(), KVM_SET_IRQCHIP, &copy); result < 0) {
      return refused("to reset the interrupt controllers", result);
    }
  }
  return {};
}

}  // namespace x86_64
}  // namespace outboard::vmm
