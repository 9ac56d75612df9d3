// The vCPUs of the x86-64 machine: CPUID, clock, power-on state, entry.

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include <cpuid.h>
#include <fmt/core.h>

#include "vmm/arch.h"
#include "vmm/kvm_abi.h"
#include "vmm/x86_64/boot_registers.h"
#include "vmm/x86_64/cpuid.h"
#include "vmm/x86_64/irqchip.h"
#include "vmm/x86_64/vcpu_state.h"

namespace outboard::vmm::arch {
namespace {

using x86_64::CpuidOptions;

// A header and CPUID entries behind it.
class CpuidBuffer {
 public:
  static constexpr std::size_t kMaxEntries = 256;

  explicit CpuidBuffer(std::span<const kvm_cpuid_entry2> entries = {})
      : words_((sizeof(abi::CountedHeader) + kMaxEntries * sizeof(kvm_cpuid_entry2)) / 8 + 1) {
    set_count(entries.empty() ? kMaxEntries : entries.size());
    if (!entries.empty())
      std::memcpy(bytes() + sizeof(abi::CountedHeader), entries.data(), entries.size_bytes());
  }

  void* data() { return words_.data(); }

  std::vector<kvm_cpuid_entry2> entries() {
    abi::CountedHeader header;
    std::memcpy(&header, bytes(), sizeof(header));
    std::vector<kvm_cpuid_entry2> result(std::min<std::size_t>(header.count, kMaxEntries));
    std::memcpy(result.data(), bytes() + sizeof(abi::CountedHeader),
                result.size() * sizeof(kvm_cpuid_entry2));
    return result;
  }

 private:
  std::byte* bytes() { return reinterpret_cast<std::byte*>(words_.data()); }
  void set_count(std::size_t count) {
    const abi::CountedHeader header{static_cast<std::uint32_t>(count), 0};
    std::memcpy(bytes(), &header, sizeof(header));
  }

  std::vector<std::uint64_t> words_;
};

Result<std::vector<kvm_cpuid_entry2>> supported_cpuid(const Kvm& kvm) {
  CpuidBuffer buffer;
  const int result =
      kvm_ioctl(kvm.fd(), abi::kGetSupportedCpuid, reinterpret_cast<unsigned long>(buffer.data()));
  if (result < 0) {
    return failure(ExitStatus::no_kvm, fmt::format("KVM does not tell which CPUID it supports: {}",
                                                   std::strerror(-result)));
  }
  return buffer.entries();
}

// The host's counter is worth the guest's trust when it runs at one rate in every power state and
// the host's kernel itself has not turned away from it.
bool host_tsc_is_trustworthy() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid(0x8000'0007, &eax, &ebx, &ecx, &edx) == 0 || (edx & (1U << 8)) == 0) return false;
  std::ifstream file("/sys/devices/system/clocksource/clocksource0/current_clocksource");
  std::string source;
  return file >> source && (source == "tsc" || source == "kvm-clock");
}

class X86HostCpu final : public HostCpu {
 public:
  explicit X86HostCpu(std::vector<kvm_cpuid_entry2> cpuid) : cpuid_(std::move(cpuid)) {}

  unsigned physical_address_bits() const override { return x86_64::physical_bits(cpuid_); }
  unsigned long vm_type() const override { return 0; }
  const std::vector<kvm_cpuid_entry2>& cpuid() const { return cpuid_; }

 private:
  const std::vector<kvm_cpuid_entry2> cpuid_;
};

class X86Cpus final : public Cpus {
 public:
  X86Cpus(const Vm& vm, x86_64::IrqchipState irqchip, x86_64::VcpuState state, std::string clock)
      : vm_(vm), irqchip_(irqchip), state_(std::move(state)), clock_(std::move(clock)) {}

  Result<void> reset(std::span<Vcpu> vcpus) override {
    if (auto done = irqchip_.restore(vm_); !done) return done;
    for (const Vcpu& vcpu : vcpus) {
      if (auto done = state_.restore(vcpu); !done) return done;
    }
    return {};
  }

  Result<void> enter(Vcpu& vcpu, const boot::EntryState& entry) override {
    kvm_regs regs{};
    kvm_sregs sregs{};
    int result = kvm_ioctl(vcpu.fd(), KVM_GET_SREGS, &sregs);
    if (result >= 0) {
      x86_64::set_entry_registers(entry, regs, sregs);
      result = kvm_ioctl(vcpu.fd(), KVM_SET_SREGS, &sregs);
    }
    if (result >= 0) result = kvm_ioctl(vcpu.fd(), KVM_SET_REGS, &regs);
    if (result < 0) {
      return failure(
          ExitStatus::internal_error,
          fmt::format("KVM refuses the kernel's entry state: {}", std::strerror(-result)));
    }
    return {};
  }

  std::string description() const override { return clock_; }

 private:
  const Vm& vm_;
  const x86_64::IrqchipState irqchip_;
  const x86_64::VcpuState state_;
  const std::string clock_;
};

}  // namespace

Result<std::unique_ptr<const HostCpu>> HostCpu::ask(const Kvm& kvm) {
  auto supported = supported_cpuid(kvm);
  if (!supported) return tl::unexpected(supported.error());
  return std::make_unique<const X86HostCpu>(std::move(*supported));
}

Result<std::unique_ptr<Cpus>> Cpus::create(const Kvm& kvm, const HostCpu& host, const Vm& vm,
                                           std::span<Vcpu> vcpus) {
  const auto& supported = static_cast<const X86HostCpu&>(host).cpuid();
  CpuidOptions options;
  options.vcpus = static_cast<std::uint32_t>(vcpus.size());
  options.tsc_deadline = kvm.capability(KVM_CAP_TSC_DEADLINE_TIMER) > 0;
  const int khz = kvm_ioctl(vcpus.front().fd(), KVM_GET_TSC_KHZ);
  const bool trusted = khz > 0 && host_tsc_is_trustworthy();
  if (trusted) options.tsc_khz = static_cast<std::uint32_t>(khz);

  for (const Vcpu& vcpu : vcpus) {
    options.index = vcpu.index();
    CpuidBuffer buffer(x86_64::guest_cpuid(supported, options));
    const int result =
        kvm_ioctl(vcpu.fd(), abi::kSetCpuid, reinterpret_cast<unsigned long>(buffer.data()));
    if (result < 0) {
      return failure(ExitStatus::no_kvm, fmt::format("KVM refuses the CPUID of vCPU {}: {}",
                                                     vcpu.index(), std::strerror(-result)));
    }
  }

  auto irqchip = x86_64::IrqchipState::capture(vm);
  if (!irqchip) return tl::unexpected(irqchip.error());
  auto state = x86_64::VcpuState::capture(kvm, vcpus.front());
  if (!state) return tl::unexpected(state.error());
  std::string clock = trusted
                          ? fmt::format("TSC at {}.{:03} MHz, kvm-clock", khz / 1000, khz % 1000)
                          : std::string("kvm-clock (the host's TSC is not trusted)");
  return std::make_unique<X86Cpus>(vm, *irqchip, std::move(*state), std::move(clock));
}

}  // namespace outboard::vmm::arch
