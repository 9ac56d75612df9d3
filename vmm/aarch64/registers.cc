#include "vmm/aarch64/registers.h"

#include "vmm/kvm.h"

namespace outboard::vmm::aarch64 {

std::optional<std::uint64_t> read_register(const Vcpu& vcpu, std::uint64_t number) {
  std::uint64_t value = 0;
  kvm_one_reg access{};
  access.id = number;
  access.addr = reinterpret_cast<std::uint64_t>(&value);
  if (kvm_ioctl(vcpu.fd(), KVM_GET_ONE_REG, &access) < 0) return std::nullopt;
  return value;
}

int write_register(const Vcpu& vcpu, std::uint64_t number, std::uint64_t value) {
  kvm_one_reg access{};
  access.id = number;
  access.addr = reinterpret_cast<std::uint64_t>(&value);
  return kvm_ioctl(vcpu.fd(), KVM_SET_ONE_REG, &access);
}

}  // namespace outboard::vmm::aarch64
