#pragma once

// KVM structures that end in an array of no fixed size, and their requests.
//
// <linux/kvm.h> declares such arrays through an empty struct, which has size 0 in C and size 1 in
// C++ with headers before Linux 6.9: the structures, and the request numbers made from their sizes,
// are wrong in C++. Here are the sizes of the ABI; the array follows the header directly.

#include <cstdint>

#include <linux/kvm.h>
#include <sys/ioctl.h>

namespace outboard::vmm::abi {

struct CountedHeader {
  std::uint32_t count = 0;  // elements that follow
  std::uint32_t flags = 0;
};
static_assert(sizeof(CountedHeader) == 8);

struct XsaveArea {
  std::uint32_t region[1024] = {};
};
static_assert(sizeof(XsaveArea) == 4096);

// A CountedHeader and kvm_irq_routing_entry elements.
inline constexpr unsigned long kSetGsiRouting = _IOC(_IOC_WRITE, KVMIO, 0x6a, 8);
// A CountedHeader and kvm_msr_entry elements.
inline constexpr unsigned long kGetMsrs = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x88, 8);
inline constexpr unsigned long kSetMsrs = _IOC(_IOC_WRITE, KVMIO, 0x89, 8);
// A count of 4 bytes and indexes of 4 bytes.
inline constexpr unsigned long kGetMsrIndexList = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x02, 4);
// A CountedHeader and kvm_cpuid_entry2 elements.
inline constexpr unsigned long kGetSupportedCpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, 8);
inline constexpr unsigned long kSetCpuid = _IOC(_IOC_WRITE, KVMIO, 0x90, 8);
// An XsaveArea.
inline constexpr unsigned long kGetXsave = _IOC(_IOC_READ, KVMIO, 0xa4, 4096);
inline constexpr unsigned long kSetXsave = _IOC(_IOC_WRITE, KVMIO, 0xa5, 4096);

}  // namespace outboard::vmm::abi
