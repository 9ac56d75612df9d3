// Everything about a vCPU that stopped for good, for a person who has to find out why.

#include <algorithm>
#include <cstring>
#include <map>

#include <fmt/core.h>

#include "vmm/arch.h"
#include "vmm/x86_64/msrs.h"

namespace outboard::vmm::arch {
namespace {

std::string segment_line(const char* name, const kvm_segment& s) {
  return fmt::format(
      "  {:<3} {:#06x}  base {:016x}  limit {:08x}  type {:x} s {} dpl {} p {} l {} db {} g {}{}\n",
      name, s.selector, std::uint64_t{s.base}, std::uint32_t{s.limit}, s.type, s.s, s.dpl,
      s.present, s.l, s.db, s.g, s.unusable != 0 ? " unusable" : "");
}

std::string general_registers(const kvm_regs& r) {
  return fmt::format(
      "  rip {:016x}  rflags {:016x}\n"
      "  rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}\n"
      "  rsi {:016x}  rdi {:016x}  rbp {:016x}  rsp {:016x}\n"
      "  r8  {:016x}  r9  {:016x}  r10 {:016x}  r11 {:016x}\n"
      "  r12 {:016x}  r13 {:016x}  r14 {:016x}  r15 {:016x}\n",
      std::uint64_t{r.rip}, std::uint64_t{r.rflags}, std::uint64_t{r.rax}, std::uint64_t{r.rbx},
      std::uint64_t{r.rcx}, std::uint64_t{r.rdx}, std::uint64_t{r.rsi}, std::uint64_t{r.rdi},
      std::uint64_t{r.rbp}, std::uint64_t{r.rsp}, std::uint64_t{r.r8}, std::uint64_t{r.r9},
      std::uint64_t{r.r10}, std::uint64_t{r.r11}, std::uint64_t{r.r12}, std::uint64_t{r.r13},
      std::uint64_t{r.r14}, std::uint64_t{r.r15});
}

std::string system_registers(const kvm_sregs& s) {
  std::string text = fmt::format(
      "  cr0 {:016x}  cr2 {:016x}  cr3 {:016x}  cr4 {:016x}\n"
      "  cr8 {:016x}  efer {:016x}  apic base {:016x}\n",
      std::uint64_t{s.cr0}, std::uint64_t{s.cr2}, std::uint64_t{s.cr3}, std::uint64_t{s.cr4},
      std::uint64_t{s.cr8}, std::uint64_t{s.efer}, std::uint64_t{s.apic_base});
  text += segment_line("cs", s.cs) + segment_line("ds", s.ds) + segment_line("es", s.es) +
          segment_line("fs", s.fs) + segment_line("gs", s.gs) + segment_line("ss", s.ss) +
          segment_line("tr", s.tr) + segment_line("ldt", s.ldt);
  text +=
      fmt::format("  gdt base {:016x} limit {:04x}   idt base {:016x} limit {:04x}\n",
                  std::uint64_t{s.gdt.base}, s.gdt.limit, std::uint64_t{s.idt.base}, s.idt.limit);
  return text;
}

std::string model_specific_registers(const Vcpu& vcpu) {
  static constexpr std::pair<std::uint32_t, const char*> kShown[] = {
      {0xc000'0081, "STAR"},
      {0xc000'0082, "LSTAR"},
      {0xc000'0084, "FMASK"},
      {0xc000'0100, "FS_BASE"},
      {0xc000'0101, "GS_BASE"},
      {0xc000'0102, "KERNEL_GS_BASE"},
      {0x174, "SYSENTER_CS"},
      {0x175, "SYSENTER_ESP"},
      {0x176, "SYSENTER_EIP"},
      {0x277, "PAT"},
      {0x10, "TSC"},
  };
  std::vector<std::uint32_t> indexes;
  for (const auto& [index, name] : kShown) indexes.push_back(index);
  const auto values = x86_64::read_msrs(vcpu, indexes);
  std::string text;
  int column = 0;
  for (const auto& [index, name] : kShown) {
    const auto found = values.find(index);
    if (found == values.end()) continue;
    text += fmt::format("  {} {:016x}{}", name, found->second, ++column % 3 == 0 ? "\n" : "");
  }
  if (column % 3 != 0) text += '\n';
  return text;
}

// Guest memory at a linear address, through the guest's own page tables.
bool read_linear(const Vcpu& vcpu, const GuestMemory& memory, std::uint64_t linear,
                 std::byte& value) {
  kvm_translation translation{};
  translation.linear_address = linear;
  if (kvm_ioctl(vcpu.fd(), KVM_TRANSLATE, &translation) < 0 || translation.valid == 0) return false;
  const auto bytes = memory.at(translation.physical_address, 1);
  if (bytes.empty()) return false;
  value = bytes[0];
  return true;
}

std::string code_bytes(const Vcpu& vcpu, const GuestMemory& memory, std::uint64_t rip) {
  constexpr std::uint64_t kBefore = 16;
  constexpr std::uint64_t kAfter = 32;
  std::string text = "  code ";
  const std::uint64_t from = rip - std::min(rip, kBefore);
  for (std::uint64_t at = from; at < rip + kAfter; ++at) {
    std::byte value{};
    const std::string byte = read_linear(vcpu, memory, at, value)
                                 ? fmt::format("{:02x}", std::to_integer<unsigned>(value))
                                 : std::string("??");
    text += at == rip ? fmt::format("<{}> ", byte) : byte + ' ';
  }
  text.back() = '\n';
  return text;
}

}  // namespace

std::string register_dump(const Vcpu& vcpu, const GuestMemory& memory) {
  kvm_regs regs{};
  kvm_sregs sregs{};
  if (kvm_ioctl(vcpu.fd(), KVM_GET_REGS, &regs) < 0 ||
      kvm_ioctl(vcpu.fd(), KVM_GET_SREGS, &sregs) < 0) {
    return fmt::format("registers of vCPU {} cannot be read\n", vcpu.index());
  }
  // KVM_GET_REGS leaves a segment base out of RIP; below long mode code starts at CS.
  const bool long_mode = (sregs.efer & 0x400) != 0 && sregs.cs.l != 0;
  const std::uint64_t linear = long_mode ? regs.rip : regs.rip + sregs.cs.base;
  kvm_mp_state mp{};
  const bool has_mp = kvm_ioctl(vcpu.fd(), KVM_GET_MP_STATE, &mp) >= 0;
  std::string text = fmt::format("registers of vCPU {}{}:\n", vcpu.index(),
                                 has_mp ? fmt::format(" (run state {})", mp.mp_state) : "");
  text += general_registers(regs);
  text += system_registers(sregs);
  text += model_specific_registers(vcpu);
  text += code_bytes(vcpu, memory, linear);
  return text;
}

}  // namespace outboard::vmm::arch
