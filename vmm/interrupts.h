#pragma once

// Interrupts from outside the vCPUs: the GSI routing table of the VM, and the irqfds and lines that
// raise GSIs. Owned by the machine; outlives the devices. Every member may be called from any
// thread, also from a vCPU inside an access.

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <vector>

#include <linux/kvm.h>

#include "devices/interrupts.h"
#include "vmm/error.h"
#include "vmm/vm.h"

namespace outboard::vmm {

// The one owner of the VM's GSI routing table: the fixed routes of the architecture's interrupt
// controller, and an MSI message for every GSI that has one. The table goes to KVM as a whole, once
// a batch, and only when it differs from what KVM has: the kernel waits for all vCPUs to notice.
class MsiRoutes final : public devices::MsiRouter {
 public:
  // GSIs from `first_msi` up are for messages; a table has at most `limit` routes. The interrupt
  // controller is there: it decides whether messages need the requester.
  MsiRoutes(const Vm& vm, std::vector<kvm_irq_routing_entry> fixed, std::uint32_t first_msi,
            std::uint32_t limit);

  // Pushes the fixed routes. Once, before the guest starts. Errors: ExitStatus::no_kvm.
  [[nodiscard]] Result<void> install();

  devices::Result<std::uint32_t> allocate_gsi() override;
  void free_gsi(std::uint32_t gsi) override;
  devices::Result<void> set_routes(std::span<const Route> routes) override;
  devices::Result<void> connect(int eventfd, std::uint32_t gsi) override;
  void disconnect(int eventfd, std::uint32_t gsi) override;

  // How often the table went to KVM.
  [[nodiscard]] std::uint64_t pushes() const { return pushes_.load(std::memory_order_relaxed); }

 private:
  using Routes = std::map<std::uint32_t, Route>;  // by GSI

  int push(const Routes& routes);  // under mutex_

  const Vm& vm_;
  const std::vector<kvm_irq_routing_entry> fixed_;
  const std::uint32_t first_msi_;
  const std::uint32_t limit_;
  const bool need_requester_;          // KVM_CAP_MSI_DEVID
  std::mutex mutex_;                   // a leaf; KVM is called under it
  Routes wanted_;                      // under mutex_
  Routes pushed_;                      // under mutex_: what KVM has
  std::set<std::uint32_t> allocated_;  // under mutex_
  std::atomic<std::uint64_t> pushes_{0};
};

// Level-triggered lines whose EOI goes back to the device (irqfd with a resample descriptor).
class IntxLines final : public devices::IntxRouter {
 public:
  explicit IntxLines(const Vm& vm) : vm_(vm) {}

  devices::Result<void> connect(std::uint32_t gsi, int trigger_fd, int resample_fd) override;
  void disconnect(std::uint32_t gsi, int trigger_fd) override;

 private:
  const Vm& vm_;
};

// A GSI that the VMM drives itself (console, power button).
class GsiLine final : public devices::InterruptLine {
 public:
  GsiLine(const Vm& vm, std::uint32_t gsi) : vm_(vm), gsi_(gsi) {}

  // The caller orders its own calls; a repeated level costs nothing.
  void set(bool level) override;

 private:
  const Vm& vm_;
  const std::uint32_t gsi_;
  std::atomic<bool> level_{false};  // what KVM was last told
};

}  // namespace outboard::vmm
