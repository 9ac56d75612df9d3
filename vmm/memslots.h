#pragma once

// The VM's memslots: which guest-physical ranges are host memory. RAM takes the first slots at
// set-up; pages that device servers share come and go while the guest runs.
//
// Owned by the machine; outlives the devices. Every member may be called from any thread, also from
// a vCPU inside an access.

#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "devices/mapper.h"
#include "vmm/error.h"
#include "vmm/guest_memory.h"
#include "vmm/vm.h"

namespace outboard::vmm {

class Memslots final : public devices::PageMapper {
 public:
  // At most `limit` slots (KVM_CAP_NR_MEMSLOTS) are used.
  Memslots(const Vm& vm, std::uint32_t limit) : vm_(vm), limit_(limit) {}

  // Refuses pages in this range from now on. At set-up.
  void reserve(devices::AddressWindow window);

  // Shows guest memory to the guest. Errors: ExitStatus::memory.
  [[nodiscard]] Result<void> add_ram(const GuestMemory& memory);

  // Refuses ranges that overlap RAM, another slot, a reserved range or the end of the address
  // space; names both.
  devices::Result<devices::SlotId> map(devices::GuestAddress at, std::span<std::byte> host,
                                       bool writable) override;
  void unmap(devices::SlotId slot) override;

  // Slots in use, RAM included.
  [[nodiscard]] std::size_t used() const;

 private:
  struct Range {
    std::uint64_t address = 0;
    std::uint64_t size = 0;
  };

  devices::Result<devices::SlotId> map_locked(std::uint64_t address, std::span<std::byte> host,
                                              bool writable);

  const Vm& vm_;
  const std::uint32_t limit_;
  mutable std::mutex mutex_;               // taken under a function's lock; KVM is called under it
  std::map<std::uint32_t, Range> ranges_;  // under mutex_: by slot number
  std::vector<devices::AddressWindow> reserved_;  // under mutex_
  std::vector<std::uint32_t> free_;               // under mutex_: numbers given back
  std::uint32_t next_ = 0;                        // under mutex_: the lowest number never used
};

}  // namespace outboard::vmm
