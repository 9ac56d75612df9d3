#include "boot/start.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>

#include "boot/bytes.h"
#include "boot/bzimage.h"
#include "boot/text.h"

namespace outboard::boot {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::size_t kLongestMap = 128;  // entries in boot_params (E820_MAX_ENTRIES_ZEROPAGE)
constexpr std::uint32_t kLongestCommandLine =
    2047;  // Linux COMMAND_LINE_SIZE on x86, less the zero
constexpr std::uint64_t kHighestInitrdByte = 0x7fff'ffff;  // Linux x86-64's initrd_addr_max

// hvm_start_info, version 1 (Xen public/arch-x86/hvm/start_info.h): offsets and sizes.
namespace start_info {
constexpr std::uint32_t kMagicValue = 0x336e'c578;
constexpr std::uint32_t kVersionValue = 1;
constexpr std::size_t kMagic = 0x00;
constexpr std::size_t kVersion = 0x04;
constexpr std::size_t kModuleCount = 0x0c;
constexpr std::size_t kModules = 0x10;
constexpr std::size_t kCommandLine = 0x18;
constexpr std::size_t kRsdp = 0x20;
constexpr std::size_t kMemoryMap = 0x28;
constexpr std::size_t kMemoryMapEntries = 0x30;
constexpr std::size_t kSize = 0x38;
constexpr std::size_t kModuleSize = 0x20;    // base, size, command line, reserved
constexpr std::size_t kMapEntrySize = 0x18;  // base, size, type, reserved
}  // namespace start_info

// boot_params (Linux Documentation/arch/x86/zero-page.rst).
namespace boot_params {
constexpr std::size_t kAcpiRsdp = 0x070;
constexpr std::size_t kE820Entries = 0x1e8;
constexpr std::size_t kTypeOfLoader = 0x210;
constexpr std::size_t kRamdiskImage = 0x218;
constexpr std::size_t kRamdiskSize = 0x21c;
constexpr std::size_t kCommandLine = 0x228;
constexpr std::size_t kE820Table = 0x2d0;
constexpr std::size_t kE820EntrySize = 20;
constexpr std::uint8_t kUndefinedLoader = 0xff;
}  // namespace boot_params

// Fields of a copied setup header, from its start at kSetupHeaderOffset.
constexpr std::size_t kInitrdAddrMax = 0x22c - kSetupHeaderOffset;
constexpr std::size_t kCommandLineSize = 0x238 - kSetupHeaderOffset;

constexpr std::uint64_t kCode32 = 0x00cf'9b00'0000'ffff;  // flat, execute/read, accessed
constexpr std::uint64_t kCode64 = 0x00af'9b00'0000'ffff;
constexpr std::uint64_t kData = 0x00cf'9300'0000'ffff;  // flat, read/write, accessed

std::optional<std::uint32_t> header_field(const LoadedKernel& kernel, std::size_t offset) {
  if (!fits(offset, 4, kernel.setup_header.size())) return std::nullopt;
  const auto value = load<std::uint32_t>(kernel.setup_header, offset);
  return value == 0 ? std::nullopt : std::optional(value);
}

Result<void> place_command_line(const LoadedKernel& kernel, std::string_view line,
                                std::span<std::byte> ram) {
  const std::uint32_t limit = std::min(
      kLongestCommandLine, header_field(kernel, kCommandLineSize).value_or(kLongestCommandLine));
  if (line.size() > limit) {
    return fail("takes a command line of at most " + std::to_string(limit) +
                " bytes, and this one has " + std::to_string(line.size()) + "; shorten it");
  }
  if (line.find('\0') != std::string_view::npos) {
    return fail("takes no zero byte in its command line; remove it");
  }
  std::memcpy(ram.data() + kCommandLineAddress, line.data(), line.size());
  ram[kCommandLineAddress + line.size()] = std::byte{0};
  return {};
}

// The highest page-aligned place for `size` bytes in RAM, above the kernel and below `limit`.
std::optional<std::uint64_t> highest_room(std::span<const MemoryRange> memory, std::uint64_t size,
                                          std::uint64_t floor, std::uint64_t limit) {
  std::optional<std::uint64_t> best;
  for (const MemoryRange& range : memory) {
    if (range.kind != MemoryRange::Kind::ram || range.base >= limit) continue;
    const std::uint64_t end = range.base + std::min(range.size, limit - range.base);
    if (end < size) continue;
    const std::uint64_t base = (end - size) / kPage * kPage;
    if (base >= std::max(range.base, floor) && (!best || base > *best)) best = base;
  }
  return best;
}

Result<std::uint64_t> place_initrd(const LoadedKernel& kernel, const BootInfo& info,
                                   std::span<std::byte> ram) {
  if (info.initrd.empty()) return 0;
  const std::uint64_t highest = std::min<std::uint64_t>(
      kHighestInitrdByte, header_field(kernel, kInitrdAddrMax).value_or(kHighestInitrdByte));
  const std::uint64_t limit = std::min<std::uint64_t>(ram.size(), highest + 1);
  const std::uint64_t floor = align_up(std::max(kernel.end, kKernelFloor), kPage);
  const auto base = highest_room(info.memory, info.initrd.size(), floor, limit);
  if (!base) {
    return fail("leaves no room for the initrd: it has " + mebibytes(info.initrd.size()) +
                ", the kernel ends at " + mebibytes(kernel.end) + " and memory for it at " +
                mebibytes(limit) + "; raise the machine's memory");
  }
  std::memcpy(ram.data() + *base, info.initrd.data(), info.initrd.size());
  return *base;
}

void place_gdt(std::span<std::byte> ram, Protocol protocol) {
  const std::array<std::uint64_t, 4> gdt{0, 0, protocol == Protocol::pvh ? kCode32 : kCode64,
                                         kData};
  std::memcpy(ram.data() + kGdtAddress, gdt.data(), sizeof gdt);
}

void place_start_info(const BootInfo& info, const EntryState& state, std::span<std::byte> ram) {
  constexpr std::size_t kModule = start_info::kSize + 8;  // keeps the arrays 64-byte-aligned
  constexpr std::size_t kMap = kModule + start_info::kModuleSize;
  static_assert(kMap + kLongestMap * start_info::kMapEntrySize <=
                kBootParamsAddress - kStartInfoAddress);
  const bool has_initrd = state.initrd_size != 0;
  const auto area =
      ram.subspan(kStartInfoAddress, kMap + info.memory.size() * start_info::kMapEntrySize);
  std::ranges::fill(area, std::byte{0});

  store<std::uint32_t>(area, start_info::kMagic, start_info::kMagicValue);
  store<std::uint32_t>(area, start_info::kVersion, start_info::kVersionValue);
  store<std::uint64_t>(area, start_info::kCommandLine, state.command_line_base);
  store<std::uint64_t>(area, start_info::kRsdp, info.rsdp);
  if (has_initrd) {
    store<std::uint32_t>(area, start_info::kModuleCount, 1);
    store<std::uint64_t>(area, start_info::kModules, kStartInfoAddress + kModule);
    store<std::uint64_t>(area, kModule, state.initrd_base);
    store<std::uint64_t>(area, kModule + 8, state.initrd_size);
  }
  store<std::uint64_t>(area, start_info::kMemoryMap, kStartInfoAddress + kMap);
  store<std::uint32_t>(area, start_info::kMemoryMapEntries,
                       static_cast<std::uint32_t>(info.memory.size()));
  std::size_t at = kMap;
  for (const MemoryRange& range : info.memory) {
    store<std::uint64_t>(area, at, range.base);
    store<std::uint64_t>(area, at + 8, range.size);
    store<std::uint32_t>(area, at + 16, e820_type(range.kind));
    at += start_info::kMapEntrySize;
  }
}

void place_boot_params(const LoadedKernel& kernel, const BootInfo& info, const EntryState& state,
                       std::span<std::byte> ram) {
  const auto page = ram.subspan(kBootParamsAddress, kPage);
  std::ranges::fill(page, std::byte{0});
  const std::size_t header_room = boot_params::kE820Table - kSetupHeaderOffset;
  std::memcpy(page.data() + kSetupHeaderOffset, kernel.setup_header.data(),
              std::min(kernel.setup_header.size(), header_room));
  store<std::uint64_t>(page, boot_params::kAcpiRsdp, info.rsdp);
  store<std::uint8_t>(page, boot_params::kTypeOfLoader, boot_params::kUndefinedLoader);
  store<std::uint32_t>(page, boot_params::kCommandLine,
                       static_cast<std::uint32_t>(state.command_line_base));
  store<std::uint32_t>(page, boot_params::kRamdiskImage,
                       static_cast<std::uint32_t>(state.initrd_base));
  store<std::uint32_t>(page, boot_params::kRamdiskSize,
                       static_cast<std::uint32_t>(state.initrd_size));
  store<std::uint8_t>(page, boot_params::kE820Entries,
                      static_cast<std::uint8_t>(info.memory.size()));
  std::size_t at = boot_params::kE820Table;
  for (const MemoryRange& range : info.memory) {
    store<std::uint64_t>(page, at, range.base);
    store<std::uint64_t>(page, at + 8, range.size);
    store<std::uint32_t>(page, at + 16, e820_type(range.kind));
    at += boot_params::kE820EntrySize;
  }
}

// PML4 → PDPT → 4 page directories: the first 4 GiB in 2 MiB pages, address = address.
void place_page_tables(std::span<std::byte> ram) {
  constexpr std::uint64_t kPresentWritable = 0x3;
  constexpr std::uint64_t kLargePage = 0x80;
  constexpr std::uint64_t kDirectories = 4;
  constexpr std::uint64_t kPdpt = kPageTablesAddress + kPage;
  constexpr std::uint64_t kFirstDirectory = kPdpt + kPage;
  std::ranges::fill(ram.subspan(kPageTablesAddress, (2 + kDirectories) * kPage), std::byte{0});
  store<std::uint64_t>(ram, kPageTablesAddress, kPdpt | kPresentWritable);
  for (std::uint64_t i = 0; i < kDirectories; ++i) {
    store<std::uint64_t>(ram, kPdpt + i * 8, (kFirstDirectory + i * kPage) | kPresentWritable);
  }
  for (std::uint64_t i = 0; i < kDirectories * 512; ++i) {
    store<std::uint64_t>(ram, kFirstDirectory + i * 8, (i << 21) | kPresentWritable | kLargePage);
  }
}

}  // namespace

Result<EntryState> place_boot_data(const LoadedKernel& kernel, const BootInfo& info,
                                   std::span<std::byte> ram) {
  if (ram.size() < kKernelFloor) return fail("needs a machine with more than 1 MiB of memory");
  if (info.memory.size() > kLongestMap) {
    return fail("can be told of " + std::to_string(kLongestMap) + " memory ranges, and there are " +
                std::to_string(info.memory.size()));
  }
  if (const auto placed = place_command_line(kernel, info.command_line, ram); !placed) {
    return tl::make_unexpected(placed.error());
  }
  const auto initrd = place_initrd(kernel, info, ram);
  if (!initrd) return tl::make_unexpected(initrd.error());

  EntryState state;
  state.protocol = kernel.protocol;
  state.rip = kernel.entry;
  state.gdt_base = kGdtAddress;
  state.gdt_limit = 4 * 8 - 1;
  state.initrd_base = *initrd;
  state.initrd_size = info.initrd.size();
  state.command_line_base = kCommandLineAddress;
  place_gdt(ram, kernel.protocol);
  if (kernel.protocol == Protocol::pvh) {
    place_start_info(info, state, ram);
    state.info = kStartInfoAddress;
  } else {
    place_page_tables(ram);
    place_boot_params(kernel, info, state, ram);
    state.info = kBootParamsAddress;
    state.cr3 = kPageTablesAddress;
  }
  return state;
}

}  // namespace outboard::boot
