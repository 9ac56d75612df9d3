// What CPUID and the boot registers tell the guest. Leaves as in the SDM volume 2A and the APM
// volume 3.
#include <optional>

#include <doctest/doctest.h>

#include "vmm/x86_64/boot_registers.h"
#include "vmm/x86_64/cpuid.h"

using namespace outboard;
using namespace outboard::vmm::x86_64;

namespace {

kvm_cpuid_entry2 entry(std::uint32_t leaf, std::uint32_t eax, std::uint32_t ebx = 0,
                       std::uint32_t ecx = 0, std::uint32_t edx = 0, std::uint32_t index = 0) {
  kvm_cpuid_entry2 e{};
  e.function = leaf;
  e.index = index;
  e.eax = eax;
  e.ebx = ebx;
  e.ecx = ecx;
  e.edx = edx;
  return e;
}

std::vector<kvm_cpuid_entry2> amd_host() {
  return {
      entry(0, 0xd, 0x68747541, 0x444d4163, 0x69746e65),
      entry(1, 0x00800f12, 0x05100800, 0x8000'0028 /* hypervisor, VMX, MONITOR */, 0x178bfbff),
      entry(0xb, 0, 1, 0x100, 0),
      entry(0xb, 3, 8, 0x201, 0, 1),
      entry(0x8000'0000, 0x8000'001f),
      entry(0x8000'0001, 0, 0, 0x4 /* SVM */, 0),
      entry(0x8000'0007, 0, 0, 0, 0x100),
      entry(0x8000'0008, 0x0000'3028, 0, 0x4007, 0),
      entry(0x8000'000a, 1, 2, 3, 4),
      entry(0x8000'001d, 0x0001'c163, 0, 0, 0, 3),
      entry(0x8000'001e, 5, 0x105, 0x300, 0),
  };
}

std::optional<kvm_cpuid_entry2> find(const std::vector<kvm_cpuid_entry2>& table, std::uint32_t leaf,
                                     std::uint32_t index = 0) {
  for (const auto& e : table) {
    if (e.function == leaf && e.index == index) return e;
  }
  return std::nullopt;
}

}  // namespace

TEST_CASE("leaf 1: APIC id, logical processors, hypervisor; no MONITOR, no VMX") {
  const auto table = guest_cpuid(amd_host(), {.vcpus = 6, .index = 5, .tsc_deadline = true});
  const auto one = find(table, 1);
  REQUIRE(one);
  CHECK((one->ebx >> 24) == 5);
  CHECK(((one->ebx >> 16) & 0xff) == 8);  // ids reserved: a power of two
  CHECK((one->ebx & 0xffff) == 0x0800);   // CLFLUSH size and brand as the host's
  CHECK((one->ecx >> 31) == 1);
  CHECK((one->ecx & 0x28) == 0);
  CHECK((one->ecx & (1U << 24)) != 0);
  CHECK((one->edx & (1U << 28)) != 0);
}

TEST_CASE("one vCPU is no multi-threaded package") {
  const auto table = guest_cpuid(amd_host(), {.vcpus = 1});
  CHECK((find(table, 1)->edx & (1U << 28)) == 0);
  CHECK(((find(table, 1)->ebx >> 16) & 0xff) == 1);
}

TEST_CASE("TSC-deadline timer and ARAT are set together, when KVM has them") {
  const auto with = guest_cpuid(amd_host(), {.tsc_deadline = true});
  CHECK((find(with, 6)->eax & 4) != 0);
  const auto without = guest_cpuid(amd_host(), {.tsc_deadline = false});
  CHECK((find(without, 1)->ecx & (1U << 24)) == 0);
  CHECK((find(without, 6)->eax & 4) == 0);
}

TEST_CASE("leaf 0xB: one thread a core, all vCPUs in one package, the x2APIC id in EDX") {
  for (const std::uint32_t vcpus : {1U, 2U, 3U, 64U}) {
    const auto table = guest_cpuid(amd_host(), {.vcpus = vcpus, .index = vcpus - 1});
    const auto threads = find(table, 0xb, 0);
    const auto cores = find(table, 0xb, 1);
    const auto end = find(table, 0xb, 2);
    REQUIRE(threads);
    REQUIRE(cores);
    REQUIRE(end);
    CHECK(threads->eax == 0);
    CHECK(threads->ebx == 1);
    CHECK((threads->ecx >> 8) == 1);
    CHECK((1U << cores->eax) >= vcpus);
    CHECK((1U << cores->eax) < 2 * vcpus);
    CHECK(cores->ebx == vcpus);
    CHECK((cores->ecx >> 8) == 2);
    CHECK(end->ebx == 0);
    CHECK((end->ecx >> 8) == 0);
    CHECK(cores->edx == vcpus - 1);
    CHECK((cores->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0);
  }
}

TEST_CASE("AMD leaves: cores in 0x80000008, the id in 0x8000001E, L3 shared by all, no SVM") {
  const auto table = guest_cpuid(amd_host(), {.vcpus = 4, .index = 2});
  CHECK((find(table, 0x8000'0008)->ecx & 0xff) == 3);
  CHECK(((find(table, 0x8000'0008)->ecx >> 12) & 0xf) == 2);
  CHECK(find(table, 0x8000'001e)->eax == 2);
  CHECK(find(table, 0x8000'001e)->ebx == 2);
  CHECK(find(table, 0x8000'001e)->ecx == 0);
  CHECK(((find(table, 0x8000'001d, 3)->eax >> 14) & 0xfff) == 3);
  CHECK((find(table, 0x8000'0001)->ecx & 0x4) == 0);
  CHECK_FALSE(find(table, 0x8000'000a));
}

TEST_CASE("hypervisor leaves carry KVM's signature") {
  const auto table = guest_cpuid(amd_host(), {});
  const auto base = find(table, 0x4000'0000);
  REQUIRE(base);
  CHECK(base->ebx == 0x4b4d564b);
  CHECK(base->ecx == 0x564b4d56);
  CHECK(base->edx == 0x0000004d);
  CHECK(base->eax >= 0x4000'0001);
}

TEST_CASE("a trusted TSC is told by leaves 0x15 and 0x40000010, and called invariant") {
  const auto table = guest_cpuid(amd_host(), {.tsc_khz = 2'400'123});
  CHECK(find(table, 0x4000'0000)->eax == 0x4000'0010);
  CHECK(find(table, 0x4000'0010)->eax == 2'400'123);
  CHECK(find(table, 0x4000'0010)->ebx == kApicBusKhz);
  const auto crystal = find(table, 0x15);
  REQUIRE(crystal);
  const std::uint64_t hertz = std::uint64_t{crystal->ecx} * crystal->ebx / crystal->eax;
  CHECK(hertz == 2'400'123'000ULL);
  CHECK(find(table, 0)->eax >= 0x15);
  CHECK((find(table, 0x8000'0007)->edx & 0x100) != 0);
}

TEST_CASE("a TSC that is not trusted is told nowhere") {
  const auto table = guest_cpuid(amd_host(), {.tsc_khz = 0});
  CHECK_FALSE(find(table, 0x15));
  CHECK_FALSE(find(table, 0x4000'0010));
  CHECK((find(table, 0x8000'0007)->edx & 0x100) == 0);
}

TEST_CASE("physical address width: leaf 0x80000008, the guest's own width where it is given") {
  CHECK(physical_bits(amd_host()) == 40);
  CHECK(physical_bits(std::vector{entry(0x8000'0008, 0x0028'3030)}) == 40);
  CHECK(physical_bits({}) == 36);
}

TEST_CASE("PVH entry: 32-bit protected mode, paging off, flat segments, EBX at the start info") {
  boot::EntryState state;
  state.protocol = boot::Protocol::pvh;
  state.rip = 0x100'0000;
  state.info = 0x2000;
  state.gdt_base = 0x1000;
  state.gdt_limit = 31;
  kvm_regs regs{};
  kvm_sregs sregs{};
  sregs.apic_base = 0xfee00900;
  set_entry_registers(state, regs, sregs);
  CHECK((sregs.cr0 & 0x8000'0001) == 1);
  CHECK(sregs.cr4 == 0);
  CHECK(sregs.efer == 0);
  CHECK(sregs.cs.db == 1);
  CHECK(sregs.cs.l == 0);
  CHECK(sregs.cs.limit == 0xffff'ffff);
  CHECK(sregs.ds.limit == 0xffff'ffff);
  CHECK(regs.rbx == 0x2000);
  CHECK(regs.rip == 0x100'0000);
  CHECK(regs.rflags == 2);
  CHECK(sregs.apic_base == 0xfee00900);
}

TEST_CASE("64-bit entry: long mode on, the given page tables, RSI at boot_params") {
  boot::EntryState state;
  state.protocol = boot::Protocol::linux64;
  state.rip = 0x100'0200;
  state.info = 0x7000;
  state.cr3 = 0x9000;
  kvm_regs regs{};
  kvm_sregs sregs{};
  set_entry_registers(state, regs, sregs);
  CHECK((sregs.cr0 & 0x8000'0001) == 0x8000'0001);
  CHECK(sregs.cr3 == 0x9000);
  CHECK((sregs.cr4 & 0x20) != 0);
  CHECK((sregs.efer & 0x500) == 0x500);
  CHECK(sregs.cs.l == 1);
  CHECK(sregs.cs.db == 0);
  CHECK(regs.rsi == 0x7000);
}
