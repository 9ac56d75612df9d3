// Everything about a vCPU that stopped for good, for a person who has to find out why.

#include <fmt/core.h>

#include "vmm/aarch64/registers.h"
#include "vmm/arch.h"

namespace outboard::vmm::arch {
namespace {

using namespace aarch64;

constexpr std::size_t kShownBytes = 16;

std::string value_text(const Vcpu& vcpu, std::uint64_t number) {
  const auto value = read_register(vcpu, number);
  return value ? fmt::format("{:016x}", *value) : "   (unreadable)  ";
}

std::string general_registers(const Vcpu& vcpu) {
  std::string text =
      fmt::format("  pc  {}  sp  {}  pstate {}\n", value_text(vcpu, kProgramCounter),
                  value_text(vcpu, kStackPointer), value_text(vcpu, kProcessorState));
  for (unsigned i = 0; i < 31; ++i) {
    text += fmt::format("  {:<3} {}{}", fmt::format("x{}", i),
                        value_text(vcpu, general_register(i)), i % 4 == 3 || i == 30 ? "\n" : "");
  }
  return text;
}

std::string system_registers(const Vcpu& vcpu) {
  static constexpr std::pair<SystemRegister, const char*> kShown[] = {
      {{.crm = 0, .op2 = 5}, "MPIDR_EL1"},
      {{.crn = 1}, "SCTLR_EL1"},
      {{.crn = 2}, "TTBR0_EL1"},
      {{.crn = 2, .op2 = 1}, "TTBR1_EL1"},
      {{.crn = 2, .op2 = 2}, "TCR_EL1"},
      {{.crn = 5, .crm = 2}, "ESR_EL1"},
      {{.crn = 6}, "FAR_EL1"},
      {{.crn = 10, .crm = 2}, "MAIR_EL1"},
      {{.crn = 12}, "VBAR_EL1"},
  };
  std::string text =
      fmt::format("  sp_el1 {}  elr_el1 {}  spsr_el1 {}\n", value_text(vcpu, kStackPointerEl1),
                  value_text(vcpu, kReturnAddressEl1), value_text(vcpu, kSavedStateEl1));
  unsigned column = 0;
  for (const auto& [which, name] : kShown) {
    text += fmt::format("  {:<9} {}{}", name, value_text(vcpu, which.number()),
                        ++column % 3 == 0 ? "\n" : "");
  }
  return text;
}

// With the MMU on, the program counter is a virtual address, which KVM does not translate here.
std::string bytes_at_pc(const Vcpu& vcpu, const GuestMemory& memory) {
  constexpr std::uint64_t kMmuOn = 1;
  const auto control = read_register(vcpu, SystemRegister{.crn = 1}.number());
  const auto pc = read_register(vcpu, kProgramCounter);
  if (!control || !pc) return {};
  if ((*control & kMmuOn) != 0) return "  bytes at pc: not shown, the MMU is on\n";
  const auto bytes = memory.at(*pc, kShownBytes);
  if (bytes.empty()) return "  bytes at pc: not in memory\n";
  std::string text = "  bytes at pc:";
  for (const std::byte byte : bytes)
    text += fmt::format(" {:02x}", std::to_integer<unsigned>(byte));
  return text + "\n";
}

}  // namespace

std::string register_dump(const Vcpu& vcpu, const GuestMemory& memory) {
  std::string text = fmt::format("registers of vCPU {}:\n", vcpu.index());
  text += general_registers(vcpu) + system_registers(vcpu) + bytes_at_pc(vcpu, memory);
  return text;
}

}  // namespace outboard::vmm::arch
