#include "vmm/vm.h"

#include "vmm/arch.h"
#include "vmm/kvm.h"

namespace outboard::vmm {

int Vm::capability(int number) const {
  const int result = kvm_ioctl(fd_.get(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(number));
  return result < 0 ? 0 : result;
}

int Vm::set_memory(std::uint32_t slot, std::uint64_t address, std::byte* host, std::uint64_t size,
                   bool writable) const {
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.flags = writable ? 0 : KVM_MEM_READONLY;
  region.guest_phys_addr = address;
  region.memory_size = size;
  region.userspace_addr = reinterpret_cast<std::uint64_t>(host);
  return kvm_ioctl(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region);
}

int Vm::assign_irqfd(int fd, std::uint32_t gsi, int resample_fd) const {
  kvm_irqfd irqfd{};
  irqfd.fd = static_cast<std::uint32_t>(fd);
  irqfd.gsi = gsi;
  if (resample_fd >= 0) {
    irqfd.flags = KVM_IRQFD_FLAG_RESAMPLE;
    irqfd.resamplefd = static_cast<std::uint32_t>(resample_fd);
  }
  return kvm_ioctl(fd_.get(), KVM_IRQFD, &irqfd);
}

int Vm::deassign_irqfd(int fd, std::uint32_t gsi) const {
  kvm_irqfd irqfd{};
  irqfd.fd = static_cast<std::uint32_t>(fd);
  irqfd.gsi = gsi;
  irqfd.flags = KVM_IRQFD_FLAG_DEASSIGN;
  return kvm_ioctl(fd_.get(), KVM_IRQFD, &irqfd);
}

int Vm::set_line(std::uint32_t gsi, bool level) const {
  kvm_irq_level line{};
  line.irq = arch::irq_line(gsi);
  line.level = level ? 1 : 0;
  return kvm_ioctl(fd_.get(), KVM_IRQ_LINE, &line);
}

}  // namespace outboard::vmm
