// What the kernel finds at its first instruction: command line, memory map, initrd, the start info
// of its boot protocol, a GDT, and for 64-bit entry the page tables.
//
// Pure: writes guest memory, keeps nothing. Called once per machine start and per reboot, after
// load_kernel() and before any vCPU runs.
//
//   guest-physical    what                                         pvh   linux64
//   0x0'1000          GDT (4 descriptors)                           x      x
//   0x0'2000          hvm_start_info, its module and memory map     x
//   0x0'7000          boot_params ("zero page")                            x
//   0x0'8000          command line, zero-terminated (2 KiB)         x      x
//   0x0'9000          page tables: PML4, PDPT, 4 page directories          x
//   0xE'0000          ACPI tables (written by the caller)           x      x
//   0x10'0000 …       the kernel, where it asks to be               x      x
//   … end of low RAM  initrd, page aligned, as high as it may be    x      x
//
// All of it below 0xA'0000 is ordinary RAM to the guest: Linux copies what it needs before it hands
// that memory out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "boot/kernel.h"
#include "boot/memory_map.h"
#include "boot/result.h"

namespace outboard::boot {

inline constexpr std::uint64_t kGdtAddress = 0x1000;
inline constexpr std::uint64_t kStartInfoAddress = 0x2000;
inline constexpr std::uint64_t kBootParamsAddress = 0x7000;
inline constexpr std::uint64_t kCommandLineAddress = 0x8000;
inline constexpr std::uint64_t kPageTablesAddress = 0x9000;
inline constexpr std::uint64_t kKernelFloor = 0x10'0000;  // no kernel byte below this

// Selectors of the GDT at kGdtAddress: flat code (32-bit for PVH, 64-bit for linux64) and flat
// data.
inline constexpr std::uint16_t kCodeSelector = 0x10;  // Linux's __BOOT_CS
inline constexpr std::uint16_t kDataSelector = 0x18;  // Linux's __BOOT_DS

struct BootInfo {
  std::span<const MemoryRange> memory{};  // ascending, not overlapping; at most 128 entries
  std::string_view command_line{};
  std::span<const std::byte> initrd{};  // empty: none
  std::uint64_t rsdp = 0;               // guest-physical address of the RSDP
};

struct EntryState {
  Protocol protocol = Protocol::pvh;
  std::uint64_t rip = 0;  // the first instruction
  std::uint64_t info =
      0;  // EBX of PVH: hvm_start_info; RSI of linux64: boot_params; X0: device tree
  std::uint64_t cr3 =
      0;  // linux64: identity map of the first 4 GiB in 2 MiB pages; PVH: 0, no paging
  std::uint64_t gdt_base = 0;  // x86-64, as the limit
  std::uint16_t gdt_limit = 0;
  std::uint64_t initrd_base = 0;
  std::uint64_t initrd_size = 0;
  std::uint64_t command_line_base = 0;
};

// `ram` is the same span as load_kernel()'s. Errors: the command line is too long or has a zero
// byte in it, the initrd does not fit between the kernel and the end of low RAM, the map is too
// long.
[[nodiscard]] Result<EntryState> place_boot_data(const LoadedKernel& kernel, const BootInfo& info,
                                                 std::span<std::byte> ram);

}  // namespace outboard::boot
