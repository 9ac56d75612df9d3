#include "vmm/x86_64/msrs.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "vmm/kvm_abi.h"

namespace outboard::vmm::x86_64 {
namespace {

// KVM stops at the first MSR it refuses and returns how many it took.
int transfer(const Vcpu& vcpu, unsigned long request, std::span<kvm_msr_entry> entries) {
  static_assert(sizeof(kvm_msr_entry) == 16);
  std::vector<std::uint64_t> storage(1 + 2 * entries.size());
  const abi::CountedHeader header{static_cast<std::uint32_t>(entries.size()), 0};
  std::memcpy(storage.data(), &header, sizeof(header));
  std::memcpy(storage.data() + 1, entries.data(), entries.size_bytes());
  const int result = kvm_ioctl(vcpu.fd(), request, storage.data());
  std::memcpy(entries.data(), storage.data() + 1, entries.size_bytes());
  return result;
}

}  // namespace

std::vector<std::uint32_t> msr_indexes(const Kvm& kvm) {
  // A count and that many indexes. With too small a count KVM gives the right one.
  std::vector<std::uint32_t> list(1 + 512);
  for (int attempt = 0; attempt < 2; ++attempt) {
    list[0] = static_cast<std::uint32_t>(list.size() - 1);
    const int result = kvm_ioctl(kvm.fd(), abi::kGetMsrIndexList, list.data());
    if (result >= 0) {
      list.resize(1 + list[0]);
      list.erase(list.begin());
      return list;
    }
    if (result != -E2BIG) break;
    list.resize(1 + list[0]);
  }
  return {};
}

std::map<std::uint32_t, std::uint64_t> read_msrs(const Vcpu& vcpu,
                                                 std::span<const std::uint32_t> indexes) {
  std::map<std::uint32_t, std::uint64_t> values;
  std::vector<kvm_msr_entry> entries;
  for (const std::uint32_t index : indexes) {
    kvm_msr_entry entry{};
    entry.index = index;
    entries.push_back(entry);
  }
  std::span<kvm_msr_entry> rest(entries);
  while (!rest.empty()) {
    // A whole page of entries at most: KVM takes up to 255.
    const auto batch = rest.first(std::min<std::size_t>(rest.size(), 200));
    const int result = transfer(vcpu, abi::kGetMsrs, batch);
    const std::size_t got = result > 0 ? static_cast<std::size_t>(result) : 0;
    for (const kvm_msr_entry& entry : batch.first(got)) values[entry.index] = entry.data;
    // The one KVM stopped at is not there.
    rest = rest.subspan(std::min(rest.size(), got == batch.size() ? got : got + 1));
  }
  return values;
}

int write_msr(const Vcpu& vcpu, const MsrValue& msr) {
  kvm_msr_entry entry{};
  entry.index = msr.index;
  entry.data = msr.value;
  const int result = transfer(vcpu, abi::kSetMsrs, std::span(&entry, 1));
  if (result < 0) return result;
  return result == 1 ? 0 : -EINVAL;
}

}  // namespace outboard::vmm::x86_64
