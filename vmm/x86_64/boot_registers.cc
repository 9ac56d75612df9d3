#include "vmm/x86_64/boot_registers.h"

namespace outboard::vmm::x86_64 {
namespace {

constexpr std::uint64_t kCr0ProtectedMode = 0x1;
constexpr std::uint64_t kCr0MonitorCoprocessor = 0x2;
constexpr std::uint64_t kCr0ExtensionType = 0x10;
constexpr std::uint64_t kCr0NumericError = 0x20;
constexpr std::uint64_t kCr0WriteProtect = 0x1'0000;
constexpr std::uint64_t kCr0Paging = 0x8000'0000;
constexpr std::uint64_t kCr4PhysicalAddressExtension = 0x20;
constexpr std::uint64_t kEferLongModeEnable = 0x100;
constexpr std::uint64_t kEferLongModeActive = 0x400;
constexpr std::uint64_t kRflagsReserved = 0x2;

kvm_segment flat_segment(std::uint16_t selector, std::uint8_t type, bool long_mode) {
  kvm_segment segment{};
  segment.selector = selector;
  segment.base = 0;
  segment.limit = 0xffff'ffff;
  segment.type = type;
  segment.present = 1;
  segment.s = 1;
  segment.g = 1;
  segment.l = long_mode ? 1 : 0;
  segment.db = long_mode ? 0 : 1;
  return segment;
}

}  // namespace

void set_entry_registers(const boot::EntryState& entry, kvm_regs& regs, kvm_sregs& sregs) {
  const bool long_mode = entry.protocol == boot::Protocol::linux64;
  constexpr std::uint8_t kCode = 0xb;  // execute, read, accessed
  constexpr std::uint8_t kData = 0x3;  // read, write, accessed

  sregs.cs = flat_segment(boot::kCodeSelector, kCode, long_mode);
  for (kvm_segment* segment : {&sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss}) {
    *segment = flat_segment(boot::kDataSelector, kData, false);
  }
  sregs.tr = {};
  sregs.tr.limit = 0x67;
  sregs.tr.type = 0xb;  // busy 32-bit (64-bit) TSS
  sregs.tr.present = 1;
  sregs.ldt = {};
  sregs.ldt.unusable = 1;
  sregs.gdt.base = entry.gdt_base;
  sregs.gdt.limit = entry.gdt_limit;
  sregs.idt.base = 0;
  sregs.idt.limit = 0;

  sregs.cr0 = kCr0ProtectedMode | kCr0ExtensionType;
  sregs.cr3 = 0;
  sregs.cr4 = 0;
  sregs.efer = 0;
  if (long_mode) {
    sregs.cr0 |= kCr0MonitorCoprocessor | kCr0NumericError | kCr0WriteProtect | kCr0Paging;
    sregs.cr3 = entry.cr3;
    sregs.cr4 = kCr4PhysicalAddressExtension;
    sregs.efer = kEferLongModeEnable | kEferLongModeActive;
  }

  regs = {};
  regs.rflags = kRflagsReserved;
  regs.rip = entry.rip;
  if (long_mode) {
    regs.rsi = entry.info;
  } else {
    regs.rbx = entry.info;
  }
}

}  // namespace outboard::vmm::x86_64
