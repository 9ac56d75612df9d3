#pragma once

// Guest stores that signal an eventfd inside KVM, without an exit. Owned by the machine; outlives
// the devices. Both members may be called from any thread, also from a vCPU inside an access.

#include "devices/ioevents.h"
#include "vmm/vm.h"

namespace outboard::vmm {

class IoEvents final : public devices::IoEvents {
 public:
  // `port_window` as in Bus.
  explicit IoEvents(const Vm& vm, std::optional<std::uint64_t> port_window = {})
      : vm_(vm), port_window_(port_window) {}

  devices::Result<void> attach(devices::Space space, std::uint64_t base, std::uint32_t size,
                               std::optional<std::uint64_t> datamatch, int fd) override;
  void detach(devices::Space space, std::uint64_t base, std::uint32_t size,
              std::optional<std::uint64_t> datamatch, int fd) override;

 private:
  [[nodiscard]] int call(devices::Space space, std::uint64_t base, std::uint32_t size,
                         std::optional<std::uint64_t> datamatch, int fd, std::uint32_t flags) const;

  const Vm& vm_;
  const std::optional<std::uint64_t> port_window_;
};

}  // namespace outboard::vmm
