#pragma once

// Guest memory that a booting kernel touches first, made present in huge pages before it does: ten
// thousand first touches of small pages take longer than copying a kernel, each costs the guest an
// exit, and what Linux takes first lies close together.

#include <cstdint>
#include <span>
#include <stop_token>
#include <thread>
#include <vector>

#include "boot/kernel.h"
#include "vmm/guest_memory.h"

namespace outboard::vmm {

// Guest-physical, both numbers in bytes and multiples of 2 MiB.
struct PageRange {
  std::uint64_t address = 0;
  std::uint64_t size = 0;
  friend bool operator==(const PageRange&, const PageRange&) = default;
};

// What Linux takes in its first second besides its image: the pages behind the kernel (the page
// allocator hands out low addresses of the memory that is initialised early), and the end of memory
// (memblock allocates from the top: struct page, 64 bytes for each 4 KiB, and hash tables). At most
// an eighth of the memory. Counted by kvm_page_fault of Linux 6.1 with 512 MiB and 1 vCPU, before
// the first block is read: 3 700 of 7 100 first touches in the 18 MiB behind the image, 2 800 in
// the last 12 MiB. `kernel` is where its image goes in the first window.
[[nodiscard]] std::vector<PageRange> taken_first(std::span<const RamWindow> windows,
                                                 const boot::Extent& kernel);

// Makes the pages of `kernel` (offsets in the first window) present, from the last down, and with
// `beyond_kernel` those of taken_first(). A kernel of less than 8 MiB is not worth it. Best effort:
// a host that has no huge pages for it (before Linux 6.1) gives small ones for the kernel, none
// beyond. Any thread; ends within one huge page of a stop.
void make_first_pages(const GuestMemory& memory, const boot::Extent& kernel, bool beyond_kernel,
                      const std::stop_token& stop);

// The same while the kernel is copied, from its first byte up: on a thread of its own where there
// is a processor for it, and then no longer than that. What is missing the guest makes by touching
// it, at the price of the exits.
class FirstPages {
 public:
  FirstPages(const GuestMemory& memory, const boot::Extent& kernel, bool beyond_kernel);

 private:
  std::jthread thread_;
};

}  // namespace outboard::vmm
