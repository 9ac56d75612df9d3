#pragma once

// The board that everything else is plugged into: the VM with its memory, buses and interrupt
// routing. Knows no device. Owned by the machine, created on the main thread; it outlives devices
// and vCPUs.

#include <memory>
#include <optional>

#include "vmm/arch.h"
#include "vmm/bus.h"
#include "vmm/error.h"
#include "vmm/guest_memory.h"
#include "vmm/interrupts.h"
#include "vmm/ioevents.h"
#include "vmm/kvm.h"
#include "vmm/machine_config.h"
#include "vmm/memslots.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

namespace outboard::vmm {

class Board {
 public:
  // Opens KVM, checks it, and makes guest memory: what is quick. Errors: ExitStatus::no_kvm,
  // ExitStatus::memory.
  [[nodiscard]] static Result<std::unique_ptr<Board>> create(const MachineConfig& config);

  // Makes the VM with its interrupt controller, shows it the memory, and makes the vCPUs: what
  // waits for the kernel. Once, on any thread; meanwhile devices may be attached to memory() and
  // the kernel loaded into it. Errors: ExitStatus::no_kvm, ExitStatus::memory.
  [[nodiscard]] Result<std::vector<Vcpu>> power_on(std::uint32_t vcpus);

  Board(const Board&) = delete;
  Board& operator=(const Board&) = delete;

  [[nodiscard]] const Kvm& kvm() const { return kvm_; }
  [[nodiscard]] const GuestMemory& memory() const { return memory_; }

  // After power_on():
  [[nodiscard]] const arch::MemoryLayout& layout() const { return layout_; }
  [[nodiscard]] const Vm& vm() const { return *vm_; }
  [[nodiscard]] Memslots& memslots() { return *memslots_; }
  [[nodiscard]] Bus& bus() { return bus_; }
  [[nodiscard]] MsiRoutes& msi() { return *msi_; }
  [[nodiscard]] const MsiRoutes& msi() const { return *msi_; }
  [[nodiscard]] IntxLines& intx() { return *intx_; }
  [[nodiscard]] IoEvents& io_events() { return *io_events_; }
  [[nodiscard]] arch::Cpus& cpus() { return *cpus_; }

 private:
  Board(Kvm kvm, GuestMemory memory) : kvm_(std::move(kvm)), memory_(std::move(memory)) {}

  Kvm kvm_;
  GuestMemory memory_;
  arch::MemoryLayout layout_;
  Bus bus_{arch::port_window()};
  std::optional<Vm> vm_;
  std::optional<Memslots> memslots_;
  std::optional<MsiRoutes> msi_;
  std::optional<IntxLines> intx_;
  std::optional<IoEvents> io_events_;
  std::unique_ptr<arch::Cpus> cpus_;
};

}  // namespace outboard::vmm
