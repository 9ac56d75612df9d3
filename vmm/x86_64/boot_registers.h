#pragma once

// Registers of the boot CPU at the kernel's first instruction. Pure.

#include <linux/kvm.h>

#include "boot/start.h"

namespace outboard::vmm::x86_64 {

// Changes what the entry protocol fixes and leaves the rest (APIC base, ...) as it is.
void set_entry_registers(const boot::EntryState& entry, kvm_regs& regs, kvm_sregs& sregs);

}  // namespace outboard::vmm::x86_64
