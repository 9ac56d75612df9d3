#pragma once

// The host's KVM: the open /dev/kvm, checked capability by capability. Created once on the main
// thread, before the VM; its ioctls may be used from any thread.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "vfio_user/unique_fd.h"
#include "vmm/error.h"

namespace outboard::vmm {

// One capability that the machine cannot do without.
struct RequiredCapability {
  int number;             // KVM_CAP_...
  std::string_view name;  // as in the kernel's header
  std::string_view use;   // what the machine needs it for
};

// A KVM file descriptor's ioctl: repeats EINTR, returns the ioctl's result or -errno.
int kvm_ioctl(int fd, unsigned long request, unsigned long argument = 0);
template <class T>
int kvm_ioctl(int fd, unsigned long request, T* argument) {
  return kvm_ioctl(fd, request, reinterpret_cast<unsigned long>(argument));
}

class Kvm {
 public:
  // Opens `path`, or takes the descriptor over that it names ("fd:5"), and checks the API version.
  // Errors (ExitStatus::no_kvm) tell an absent device, a
  // missing permission and a busy one apart, each with its remedy.
  [[nodiscard]] static Result<Kvm> open(const std::string& path = "/dev/kvm");

  // Everything in `required` that this KVM lacks is named in one error.
  [[nodiscard]] Result<void> require(std::span<const RequiredCapability> required) const;

  // KVM_CHECK_EXTENSION: 0 when the capability is absent.
  [[nodiscard]] int capability(int number) const;

  // Makes a virtual machine; `type` as arch::HostCpu::vm_type() says. Errors: ExitStatus::no_kvm.
  [[nodiscard]] Result<vfio_user::UniqueFd> create_vm(unsigned long type = 0) const;

  // Bytes of a vCPU's shared kvm_run area.
  [[nodiscard]] std::size_t vcpu_area_size() const { return vcpu_area_size_; }

  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  static Result<Kvm> adopt(vfio_user::UniqueFd fd, const std::string& path);
  explicit Kvm(vfio_user::UniqueFd fd) : fd_(std::move(fd)) {}

  vfio_user::UniqueFd fd_;
  std::size_t vcpu_area_size_ = 0;
};

}  // namespace outboard::vmm
