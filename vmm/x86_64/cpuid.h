#pragma once

// What CPUID tells the guest: what KVM supports, with the machine's own topology and clock
// frequencies. Pure: entries in, entries out.

#include <cstdint>
#include <span>
#include <vector>

#include <linux/kvm.h>

namespace outboard::vmm::x86_64 {

struct CpuidOptions {
  std::uint32_t vcpus = 1;    // one package of that many cores with one thread each
  std::uint32_t index = 0;    // this vCPU, which is its APIC id too
  std::uint32_t tsc_khz = 0;  // 0: the host's time stamp counter is not to be trusted
  bool tsc_deadline = false;  // KVM has the APIC timer's TSC-deadline mode
};

// KVM's local APIC counts nanoseconds.
constexpr std::uint32_t kApicBusKhz = 1'000'000;

// `supported` is KVM_GET_SUPPORTED_CPUID's. Leaves are as in the SDM, volume 2A, CPUID; the AMD
// ones as in the APM, volume 3, appendix E.
[[nodiscard]] std::vector<kvm_cpuid_entry2> guest_cpuid(std::span<const kvm_cpuid_entry2> supported,
                                                        const CpuidOptions& options);

// Width of the guest's physical addresses: leaf 0x8000'0008.
[[nodiscard]] unsigned physical_bits(std::span<const kvm_cpuid_entry2> supported);

}  // namespace outboard::vmm::x86_64
