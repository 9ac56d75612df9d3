#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "boot/start.h"
#include "tests/unit/boot_samples.h"

using namespace outboard::boot;
using samples::Bytes;

namespace {

constexpr std::size_t kRam = std::size_t{8} << 20;
constexpr std::array kMap{
    MemoryRange{0, 0xa0000, MemoryRange::Kind::ram},
    MemoryRange{0xa0000, 0x60000, MemoryRange::Kind::reserved},
    MemoryRange{0x100000, kRam - 0x100000, MemoryRange::Kind::ram},
    MemoryRange{0xe000'0000, 0x100000, MemoryRange::Kind::reserved},
    MemoryRange{0x1'0000'0000, 0x4000'0000, MemoryRange::Kind::ram},
};

LoadedKernel loaded(Protocol protocol, Bytes& ram, const samples::BzImageOptions& options = {}) {
  const Bytes elf = samples::elf();
  auto kernel = load_kernel(samples::bzimage(samples::pack_lz4(elf), elf.size(), options), ram,
                            protocol == Protocol::pvh ? Entry::pvh : Entry::bzimage);
  REQUIRE(kernel.has_value());
  return *kernel;
}

std::string text_at(const Bytes& ram, std::uint64_t address) {
  return reinterpret_cast<const char*>(ram.data() + address);
}

std::string refusal(const BootInfo& info, const samples::BzImageOptions& options = {}) {
  Bytes ram = samples::dirty_ram(kRam);
  const auto state = place_boot_data(loaded(Protocol::pvh, ram, options), info, ram);
  REQUIRE_FALSE(state.has_value());
  return state.error().message;
}

}  // namespace

TEST_CASE("Xen start_info.h: version 1 with command line, RSDP, module list and memory map") {
  Bytes ram = samples::dirty_ram(kRam);
  const LoadedKernel kernel = loaded(Protocol::pvh, ram);
  const Bytes initrd = samples::code(10000);
  const auto state = place_boot_data(
      kernel, {.memory = kMap, .command_line = "console=ttyS0", .initrd = initrd, .rsdp = 0xe0000},
      ram);
  REQUIRE(state.has_value());
  CHECK(state->protocol == Protocol::pvh);
  CHECK(state->rip == kernel.entry);
  CHECK(state->cr3 == 0);
  const std::uint64_t at = state->info;
  CHECK(load<std::uint32_t>(ram, at) == 0x336ec578);
  CHECK(load<std::uint32_t>(ram, at + 4) == 1);
  CHECK(load<std::uint32_t>(ram, at + 8) == 0);
  CHECK(load<std::uint32_t>(ram, at + 12) == 1);
  const auto module = load<std::uint64_t>(ram, at + 16);
  CHECK(load<std::uint64_t>(ram, module) == state->initrd_base);
  CHECK(load<std::uint64_t>(ram, module + 8) == initrd.size());
  CHECK(load<std::uint64_t>(ram, module + 16) == 0);
  CHECK(text_at(ram, load<std::uint64_t>(ram, at + 24)) == "console=ttyS0");
  CHECK(load<std::uint64_t>(ram, at + 32) == 0xe0000);
  REQUIRE(load<std::uint32_t>(ram, at + 48) == kMap.size());
  const auto map = load<std::uint64_t>(ram, at + 40);
  for (std::size_t i = 0; i < kMap.size(); ++i) {
    CHECK(load<std::uint64_t>(ram, map + i * 24) == kMap[i].base);
    CHECK(load<std::uint64_t>(ram, map + i * 24 + 8) == kMap[i].size);
    CHECK(load<std::uint32_t>(ram, map + i * 24 + 16) ==
          (kMap[i].kind == MemoryRange::Kind::ram ? 1 : 2));
    CHECK(load<std::uint32_t>(ram, map + i * 24 + 20) == 0);
  }
}

TEST_CASE("initrd: page-aligned, whole, as high in low RAM as it fits") {
  Bytes ram = samples::dirty_ram(kRam);
  const LoadedKernel kernel = loaded(Protocol::pvh, ram);
  const Bytes initrd = samples::code(10000);
  const auto state =
      place_boot_data(kernel, {.memory = kMap, .command_line = "", .initrd = initrd}, ram);
  REQUIRE(state.has_value());
  CHECK(state->initrd_base == kRam - 3 * 4096);
  CHECK(state->initrd_size == initrd.size());
  CHECK(std::equal(initrd.begin(), initrd.end(),
                   ram.begin() + static_cast<std::ptrdiff_t>(state->initrd_base)));
}

TEST_CASE("boot.rst: the initrd stays below initrd_addr_max") {
  Bytes ram = samples::dirty_ram(kRam);
  const LoadedKernel kernel = loaded(Protocol::pvh, ram, {.initrd_addr_max = 0x3f'ffff});
  const Bytes initrd(5000);
  const auto state =
      place_boot_data(kernel, {.memory = kMap, .command_line = "", .initrd = initrd}, ram);
  REQUIRE(state.has_value());
  CHECK(state->initrd_base == 0x400000 - 2 * 4096);
}

TEST_CASE("initrd: with no room above the kernel the message has the sizes and the remedy") {
  const Bytes initrd(kRam);
  const std::string message = refusal({.memory = kMap, .command_line = "", .initrd = initrd});
  CHECK(message.find("8 MiB") != std::string::npos);
  CHECK(message.find("raise the machine's memory") != std::string::npos);
}

TEST_CASE("command line: 2047 bytes fit, one more and a zero byte are refused") {
  Bytes ram = samples::dirty_ram(kRam);
  const LoadedKernel kernel = loaded(Protocol::linux64, ram);
  const std::string longest(2047, 'x');
  const auto state = place_boot_data(kernel, {.memory = kMap, .command_line = longest}, ram);
  REQUIRE(state.has_value());
  CHECK(text_at(ram, state->command_line_base) == longest);
  CHECK(load<std::uint64_t>(ram, state->cr3) == (state->cr3 + 0x1000 + 3));

  CHECK(refusal({.memory = kMap, .command_line = longest + "x"}).find("2047") != std::string::npos);
  CHECK(refusal({.memory = kMap, .command_line = std::string_view("a\0b", 3)}).find("zero byte") !=
        std::string::npos);
  CHECK(refusal({.memory = kMap, .command_line = "0123456789"}, {.cmdline_size = 9})
            .find("9 bytes") != std::string::npos);
}

TEST_CASE(
    "zero-page.rst: boot_params has the setup header, E820 map, initrd, RSDP and loader type") {
  Bytes ram = samples::dirty_ram(kRam);
  const LoadedKernel kernel = loaded(Protocol::linux64, ram);
  const Bytes initrd(5000);
  const auto state = place_boot_data(
      kernel, {.memory = kMap, .command_line = "quiet", .initrd = initrd, .rsdp = 0xe0000}, ram);
  REQUIRE(state.has_value());
  const std::uint64_t at = state->info;
  CHECK(at % 4096 == 0);
  CHECK(load<std::uint64_t>(ram, at + 0x070) == 0xe0000);
  CHECK(load<std::uint8_t>(ram, at + 0x1ef) == 0);  // sentinel
  CHECK(load<std::uint16_t>(ram, at + 0x1fe) == 0xaa55);
  CHECK(load<std::uint32_t>(ram, at + 0x202) == 0x53726448);
  CHECK(load<std::uint8_t>(ram, at + 0x210) == 0xff);
  CHECK(load<std::uint32_t>(ram, at + 0x218) == state->initrd_base);
  CHECK(load<std::uint32_t>(ram, at + 0x21c) == 5000);
  CHECK(text_at(ram, load<std::uint32_t>(ram, at + 0x228)) == "quiet");
  CHECK(load<std::uint64_t>(ram, at + 0x258) == 0x200000);
  REQUIRE(load<std::uint8_t>(ram, at + 0x1e8) == kMap.size());
  CHECK(load<std::uint64_t>(ram, at + 0x2d0 + 4 * 20) == 0x1'0000'0000);
  CHECK(load<std::uint64_t>(ram, at + 0x2d0 + 4 * 20 + 8) == 0x4000'0000);
  CHECK(load<std::uint32_t>(ram, at + 0x2d0 + 4 * 20 + 16) == 1);
}

TEST_CASE("boot.rst 64-bit protocol: the page tables map the first 4 GiB to themselves") {
  Bytes ram = samples::dirty_ram(kRam);
  const auto state =
      place_boot_data(loaded(Protocol::linux64, ram), {.memory = kMap, .command_line = ""}, ram);
  REQUIRE(state.has_value());
  const auto walk = [&](std::uint64_t address) {
    std::uint64_t table = state->cr3;
    for (const unsigned shift : {39u, 30u, 21u}) {
      const auto entry = load<std::uint64_t>(ram, table + (address >> shift & 511) * 8);
      REQUIRE((entry & 3) == 3);
      REQUIRE(((entry & 0x80) != 0) == (shift == 21));
      table = entry & 0x000f'ffff'ffff'f000;
    }
    return table | (address & 0x1f'ffff);
  };
  for (const std::uint64_t address :
       {0x0ull, 0x1234567ull, 0x3fff'ffffull, 0x4000'0000ull, 0xffff'fff0ull}) {
    CHECK(walk(address) == address);
  }
  CHECK(load<std::uint64_t>(ram, state->cr3 + 8) == 0);
}

TEST_CASE(
    "boot.rst: GDT with flat 0x10 code and 0x18 data; 64-bit code only for the 64-bit entry") {
  for (const Protocol protocol : {Protocol::pvh, Protocol::linux64}) {
    Bytes ram = samples::dirty_ram(kRam);
    const auto state =
        place_boot_data(loaded(protocol, ram), {.memory = kMap, .command_line = ""}, ram);
    REQUIRE(state.has_value());
    CHECK(state->gdt_limit == 31);
    CHECK(load<std::uint64_t>(ram, state->gdt_base) == 0);
    const auto code = load<std::uint64_t>(ram, state->gdt_base + kCodeSelector);
    CHECK((code >> 53 & 1) == (protocol == Protocol::linux64 ? 1 : 0));  // L
    CHECK((code >> 54 & 1) == (protocol == Protocol::linux64 ? 0 : 1));  // D
    CHECK(load<std::uint64_t>(ram, state->gdt_base + kDataSelector) == 0x00cf93000000ffff);
  }
}

TEST_CASE("boot data of a second start hides what the first left") {
  Bytes ram = samples::dirty_ram(kRam);
  const LoadedKernel kernel = loaded(Protocol::pvh, ram);
  const Bytes initrd(5000);
  REQUIRE(
      place_boot_data(kernel, {.memory = kMap, .command_line = "first", .initrd = initrd}, ram));
  const auto state = place_boot_data(kernel, {.memory = kMap, .command_line = "2"}, ram);
  REQUIRE(state.has_value());
  CHECK(text_at(ram, state->command_line_base) == "2");
  CHECK(load<std::uint32_t>(ram, state->info + 12) == 0);
  CHECK(load<std::uint64_t>(ram, state->info + 16) == 0);
}

TEST_CASE("a memory map of more than 128 ranges is refused") {
  const std::vector<MemoryRange> map(129);
  CHECK(refusal({.memory = map, .command_line = ""}).find("129") != std::string::npos);
}
