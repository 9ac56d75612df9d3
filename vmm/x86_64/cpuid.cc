#include "vmm/x86_64/cpuid.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace outboard::vmm::x86_64 {
namespace {

constexpr std::uint32_t bit(unsigned n) {
  return std::uint32_t{1} << n;
}

// Leaf 1
constexpr std::uint32_t kEcxMonitor = bit(3);
constexpr std::uint32_t kEcxVmx = bit(5);
constexpr std::uint32_t kEcxX2apic = bit(21);
constexpr std::uint32_t kEcxTscDeadline = bit(24);
constexpr std::uint32_t kEcxHypervisor = bit(31);
constexpr std::uint32_t kEdxHyperThreading = bit(28);
// Leaf 6
constexpr std::uint32_t kEaxAlwaysRunningTimer = bit(2);
// Leaf 0x8000'0001
constexpr std::uint32_t kEcxCompatLegacy = bit(1);
constexpr std::uint32_t kEcxSvm = bit(2);
// Leaf 0x8000'0007
constexpr std::uint32_t kEdxInvariantTsc = bit(8);

constexpr std::uint32_t kHypervisorBase = 0x4000'0000;
constexpr std::uint32_t kHypervisorTiming = 0x4000'0010;
constexpr std::uint32_t kExtendedBase = 0x8000'0000;

class Table {
 public:
  explicit Table(std::span<const kvm_cpuid_entry2> entries)
      : entries_(entries.begin(), entries.end()) {}

  kvm_cpuid_entry2* find(std::uint32_t leaf, std::uint32_t subleaf = 0) {
    const auto found = std::ranges::find_if(entries_, [&](const kvm_cpuid_entry2& entry) {
      return entry.function == leaf && entry.index == subleaf;
    });
    return found == entries_.end() ? nullptr : &*found;
  }

  kvm_cpuid_entry2& get(std::uint32_t leaf) {
    if (kvm_cpuid_entry2* entry = find(leaf)) return *entry;
    kvm_cpuid_entry2 entry{};
    entry.function = leaf;
    return entries_.emplace_back(entry);
  }

  void remove(std::uint32_t leaf) {
    std::erase_if(entries_, [leaf](const kvm_cpuid_entry2& e) { return e.function == leaf; });
  }

  void add_subleaf(std::uint32_t leaf, std::uint32_t subleaf, std::uint32_t eax, std::uint32_t ebx,
                   std::uint32_t ecx, std::uint32_t edx) {
    kvm_cpuid_entry2 entry{};
    entry.function = leaf;
    entry.index = subleaf;
    entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    entry.eax = eax;
    entry.ebx = ebx;
    entry.ecx = ecx;
    entry.edx = edx;
    entries_.push_back(entry);
  }

  std::vector<kvm_cpuid_entry2>& entries() { return entries_; }

 private:
  std::vector<kvm_cpuid_entry2> entries_;
};

bool is_amd(Table& table) {
  const kvm_cpuid_entry2* leaf = table.find(0);
  if (leaf == nullptr) return false;
  return (leaf->ebx == 0x6874'7541 /* Auth */ && leaf->ecx == 0x444d'4163 /* cAMD */) ||
         (leaf->ebx == 0x6f67'7948 /* Hygo */ && leaf->ecx == 0x656e'6975 /* uine */);
}

// Bits of the APIC id that tell the cores of the package apart.
std::uint32_t core_bits(std::uint32_t vcpus) {
  return static_cast<std::uint32_t>(std::bit_width(vcpus - 1));
}

void set_feature_leaves(Table& table, const CpuidOptions& options) {
  kvm_cpuid_entry2& one = table.get(1);
  one.ebx = (one.ebx & 0x0000'ffff) | (options.index << 24) |
            (std::min<std::uint32_t>(std::bit_ceil(options.vcpus), 255) << 16);
  one.ecx |= kEcxHypervisor | kEcxX2apic;
  one.ecx &= ~(kEcxMonitor | kEcxVmx);
  if (options.tsc_deadline) {
    one.ecx |= kEcxTscDeadline;
  } else {
    one.ecx &= ~kEcxTscDeadline;
  }
  if (options.vcpus > 1) {
    one.edx |= kEdxHyperThreading;
  } else {
    one.edx &= ~kEdxHyperThreading;
  }

  kvm_cpuid_entry2& six = table.get(6);
  six.eax = options.tsc_deadline ? kEaxAlwaysRunningTimer : 0;
  six.ebx = six.ecx = six.edx = 0;  // no frequency or thermal control
}

// Leaf 4 and AMD's 0x8000'001D, cache parameters: which CPUs share a cache.
void set_cache_sharing(Table& table, const CpuidOptions& options) {
  const std::uint32_t id_space = std::uint32_t{1} << core_bits(options.vcpus);
  for (kvm_cpuid_entry2& entry : table.entries()) {
    const bool intel = entry.function == 4;
    if ((!intel && entry.function != 0x8000'001d) || (entry.eax & 0x1f) == 0) continue;
    const std::uint32_t level = (entry.eax >> 5) & 7;
    const std::uint32_t sharing = level >= 3 ? id_space - 1 : 0;
    entry.eax = (entry.eax & 0x0000'3fff) | (std::min<std::uint32_t>(sharing, 0xfff) << 14);
    if (intel) entry.eax |= std::min<std::uint32_t>(id_space - 1, 0x3f) << 26;
  }
}

// Leaves 0xB and 0x1F, extended topology: thread level, core level.
void set_topology(Table& table, const CpuidOptions& options) {
  const std::uint32_t bits = core_bits(options.vcpus);
  const bool has_v2 = table.find(0x1f) != nullptr;
  for (const std::uint32_t leaf : {0x0bU, 0x1fU}) {
    if (leaf == 0x1f && !has_v2) continue;
    table.remove(leaf);
    table.add_subleaf(leaf, 0, 0, 1, 0x0100, options.index);
    table.add_subleaf(leaf, 1, bits, options.vcpus, 0x0201, options.index);
    table.add_subleaf(leaf, 2, 0, 0, 0x0002, options.index);
  }
}

void set_amd_leaves(Table& table, const CpuidOptions& options) {
  if (kvm_cpuid_entry2* one = table.find(0x8000'0001)) {
    one->ecx &= ~kEcxSvm;
    one->ecx = options.vcpus > 1 ? one->ecx | kEcxCompatLegacy : one->ecx & ~kEcxCompatLegacy;
  }
  table.remove(0x8000'000a);  // SVM's features
  if (kvm_cpuid_entry2* eight = table.find(0x8000'0008)) {
    eight->ecx = (core_bits(options.vcpus) << 12) | (options.vcpus - 1);
  }
  if (kvm_cpuid_entry2* topology = table.find(0x8000'001e)) {
    topology->eax = options.index;
    topology->ebx = options.index & 0xff;  // core id, one thread a core
    topology->ecx = 0;                     // node 0 of 1
    topology->edx = 0;
  }
}

void set_clock_leaves(Table& table, const CpuidOptions& options) {
  kvm_cpuid_entry2& base = table.get(kHypervisorBase);
  constexpr char kSignature[13] = "KVMKVMKVM\0\0\0";
  std::memcpy(&base.ebx, kSignature, 4);
  std::memcpy(&base.ecx, kSignature + 4, 4);
  std::memcpy(&base.edx, kSignature + 8, 4);
  base.eax = std::max(base.eax, kHypervisorBase + 1);
  table.remove(0x15);
  table.remove(0x16);
  if (options.tsc_khz == 0) {
    if (kvm_cpuid_entry2* seven = table.find(0x8000'0007)) seven->edx &= ~kEdxInvariantTsc;
    return;
  }
  base.eax = kHypervisorTiming;
  kvm_cpuid_entry2& timing = table.get(kHypervisorTiming);
  timing.eax = options.tsc_khz;
  timing.ebx = kApicBusKhz;
  // The crystal is the clock of the APIC timer; TSC frequency = crystal * EBX / EAX.
  kvm_cpuid_entry2& crystal = table.get(0x15);
  crystal.eax = kApicBusKhz;
  crystal.ebx = options.tsc_khz;
  crystal.ecx = kApicBusKhz * 1000;
  crystal.edx = 0;
  table.get(0x8000'0007).edx |= kEdxInvariantTsc;
}

void set_maxima(Table& table) {
  std::uint32_t basic = 0;
  std::uint32_t extended = kExtendedBase;
  for (const kvm_cpuid_entry2& entry : table.entries()) {
    if (entry.function < kHypervisorBase) basic = std::max(basic, entry.function);
    if (entry.function >= kExtendedBase && entry.function < 0xc000'0000) {
      extended = std::max(extended, entry.function);
    }
  }
  table.get(0).eax = std::max(table.get(0).eax, basic);
  table.get(kExtendedBase).eax = std::max(table.get(kExtendedBase).eax, extended);
}

}  // namespace

std::vector<kvm_cpuid_entry2> guest_cpuid(std::span<const kvm_cpuid_entry2> supported,
                                          const CpuidOptions& options) {
  Table table(supported);
  set_feature_leaves(table, options);
  set_cache_sharing(table, options);
  set_topology(table, options);
  if (is_amd(table)) set_amd_leaves(table, options);
  set_clock_leaves(table, options);
  set_maxima(table);
  return std::move(table.entries());
}

unsigned physical_bits(std::span<const kvm_cpuid_entry2> supported) {
  for (const kvm_cpuid_entry2& entry : supported) {
    if (entry.function != 0x8000'0008) continue;
    const unsigned guest = (entry.eax >> 16) & 0xff;  // narrower when nested paging is
    const unsigned host = entry.eax & 0xff;
    const unsigned bits = guest != 0 ? std::min(guest, host) : host;
    if (bits >= 36) return std::min(bits, 52U);
  }
  return 36;
}

}  // namespace outboard::vmm::x86_64
