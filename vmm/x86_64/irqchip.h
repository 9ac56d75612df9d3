#pragma once

// The power-on state of the in-kernel interrupt controllers (PICs and IOAPIC), kept for machine
// resets. Main thread, no vCPU running.

#include <array>

#include <linux/kvm.h>

#include "vmm/error.h"
#include "vmm/vm.h"

namespace outboard::vmm::x86_64 {

class IrqchipState {
 public:
  [[nodiscard]] static Result<IrqchipState> capture(const Vm& vm);
  [[nodiscard]] Result<void> restore(const Vm& vm) const;

 private:
  IrqchipState() = default;
  std::array<kvm_irqchip, 3> chips_{};  // PIC, second PIC, IOAPIC
};

}  // namespace outboard::vmm::x86_64
