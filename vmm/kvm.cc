#include "vmm/kvm.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vfio_user/given_fds.h"
#include "vmm/arch.h"
#include "vmm/given_files.h"

namespace outboard::vmm {

int kvm_ioctl(int fd, unsigned long request, unsigned long argument) {
  for (;;) {
    const int result = ::ioctl(fd, request, argument);
    if (result >= 0) return result;
    if (errno != EINTR) return -errno;
  }
}

Result<Kvm> Kvm::open(const std::string& path) {
  if (vfio_user::is_given_fd(path)) {
    auto fd = take_given(path, ExitStatus::no_kvm);
    if (!fd) return tl::unexpected(fd.error());
    return adopt(std::move(*fd), path);
  }
  vfio_user::UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) {
    const int error = errno;
    switch (error) {
      case ENOENT:
      case ENXIO:
      case ENODEV:
        return failure(ExitStatus::no_kvm,
                       fmt::format("{} is absent: {}", path, arch::kvm_remedy()));
      case EACCES:
      case EPERM:
        return failure(ExitStatus::no_kvm,
                       fmt::format("no permission to open {}: run as root, or join the group that "
                                   "owns it ('usermod -aG kvm $USER', then log in again)",
                                   path));
      case EBUSY:
        return failure(ExitStatus::no_kvm,
                       fmt::format("{} is busy: another hypervisor holds the CPU's "
                                   "virtualization; stop it first",
                                   path));
      default:
        return failure(ExitStatus::no_kvm,
                       fmt::format("cannot open {}: {}", path, std::strerror(error)));
    }
  }
  return adopt(std::move(fd), path);
}

Result<Kvm> Kvm::adopt(vfio_user::UniqueFd fd, const std::string& path) {
  Kvm kvm(std::move(fd));
  const int version = kvm_ioctl(kvm.fd(), KVM_GET_API_VERSION);
  if (version != KVM_API_VERSION) {
    if (version < 0) {
      return failure(ExitStatus::no_kvm,
                     fmt::format("{} does not answer as KVM: {}", path, std::strerror(-version)));
    }
    return failure(ExitStatus::no_kvm, fmt::format("{} speaks KVM API {}, outboard needs {}", path,
                                                   version, KVM_API_VERSION));
  }
  const int size = kvm_ioctl(kvm.fd(), KVM_GET_VCPU_MMAP_SIZE);
  if (size < static_cast<int>(sizeof(kvm_run))) {
    return failure(ExitStatus::no_kvm,
                   fmt::format("{} gives no usable vCPU area ({} bytes)", path, size));
  }
  kvm.vcpu_area_size_ = static_cast<std::size_t>(size);
  return kvm;
}

Result<void> Kvm::require(std::span<const RequiredCapability> required) const {
  std::string missing;
  for (const RequiredCapability& one : required) {
    if (capability(one.number) > 0) continue;
    if (!missing.empty()) missing += "; ";
    missing += fmt::format("{} ({})", one.name, one.use);
  }
  if (missing.empty()) return {};
  return failure(
      ExitStatus::no_kvm,
      fmt::format("this host's KVM lacks {}: use a newer kernel or another host", missing));
}

int Kvm::capability(int number) const {
  const int result = kvm_ioctl(fd_.get(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(number));
  return result < 0 ? 0 : result;
}

Result<vfio_user::UniqueFd> Kvm::create_vm(unsigned long type) const {
  const int fd = kvm_ioctl(fd_.get(), KVM_CREATE_VM, type);
  if (fd < 0) {
    return failure(ExitStatus::no_kvm,
                   fmt::format("KVM refuses to make a virtual machine: {}{}", std::strerror(-fd),
                               fd == -ENOMEM ? "; free memory, or raise the memory limit" : ""));
  }
  return vfio_user::UniqueFd(fd);
}

}  // namespace outboard::vmm
