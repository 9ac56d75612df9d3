#include "vmm/ioevents.h"

#include <cstring>

#include <fmt/core.h>
#include <linux/kvm.h>

#include "vmm/kvm.h"
#include "vmm/log.h"

namespace outboard::vmm {

int IoEvents::call(devices::Space space, std::uint64_t base, std::uint32_t size,
                   std::optional<std::uint64_t> datamatch, int fd, std::uint32_t flags) const {
  kvm_ioeventfd event{};
  event.addr = base;
  event.len = size;
  event.fd = fd;
  event.flags = flags;
  if (space == devices::Space::pio) {
    if (port_window_) {
      event.addr += *port_window_;
    } else {
      event.flags |= KVM_IOEVENTFD_FLAG_PIO;
    }
  }
  if (datamatch) {
    event.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
    event.datamatch = *datamatch;
  }
  return kvm_ioctl(vm_.fd(), KVM_IOEVENTFD, &event);
}

devices::Result<void> IoEvents::attach(devices::Space space, std::uint64_t base, std::uint32_t size,
                                       std::optional<std::uint64_t> datamatch, int fd) {
  if (const int result = call(space, base, size, datamatch, fd, 0); result < 0) {
    return devices::failure(fmt::format("KVM refuses an ioeventfd of {} bytes at {:#x}: {}", size,
                                        base, std::strerror(-result)),
                            -result);
  }
  return {};
}

void IoEvents::detach(devices::Space space, std::uint64_t base, std::uint32_t size,
                      std::optional<std::uint64_t> datamatch, int fd) {
  const int result = call(space, base, size, datamatch, fd, KVM_IOEVENTFD_FLAG_DEASSIGN);
  if (result < 0) {
    log::error("KVM refuses to take back the ioeventfd at {:#x}: {}", base, std::strerror(-result));
  }
}

}  // namespace outboard::vmm
