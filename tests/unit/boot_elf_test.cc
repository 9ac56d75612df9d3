#include <algorithm>
#include <string>

#include <elf.h>

#include "boot/elf.h"
#include "boot/kernel.h"
#include "tests/unit/boot_samples.h"

using namespace outboard::boot;
using samples::Bytes;

namespace {

constexpr std::size_t kRam = std::size_t{4} << 20;

std::string refusal(const Bytes& file, Entry entry = Entry::automatic,
                    std::size_t ram_size = kRam) {
  Bytes ram = samples::dirty_ram(ram_size);
  const auto kernel = load_kernel(file, ram, entry);
  REQUIRE_FALSE(kernel.has_value());
  CHECK(kernel.error().message.find('\n') == std::string::npos);
  return kernel.error().message;
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("Xen PVH: an ELF is entered at the address of its XEN_ELFNOTE_PHYS32_ENTRY") {
  for (const std::uint32_t width : {4u, 8u}) {
    Bytes ram = samples::dirty_ram(kRam);
    const auto kernel = load_kernel(samples::elf({.note_width = width}), ram, Entry::automatic);
    REQUIRE(kernel.has_value());
    CHECK(kernel->protocol == Protocol::pvh);
    CHECK(kernel->entry == 0x100010);
    CHECK(kernel->compression.empty());
    CHECK(kernel->said.empty());
  }
}

TEST_CASE("ELF: segments go to p_paddr, the rest up to p_memsz is zero, nothing else is touched") {
  Bytes ram = samples::dirty_ram(kRam);
  const auto kernel = load_kernel(samples::elf(), ram, Entry::pvh);
  REQUIRE(kernel.has_value());
  CHECK(kernel->end == 0x100000 + 3500);
  const Bytes code = samples::code(3000);
  CHECK(std::equal(code.begin(), code.end(), ram.begin() + 0x100000));
  CHECK(std::count(ram.begin() + 0x100000 + 3000, ram.begin() + 0x100000 + 3500, std::byte{0}) ==
        500);
  CHECK(std::count(ram.begin(), ram.begin() + 0x100000, std::byte{0xaa}) == 0x100000);
  CHECK(ram[0x100000 + 3500] == std::byte{0xaa});
}

TEST_CASE("ELF: without a PVH note the message names the bzImage as the remedy") {
  CHECK(contains(refusal(samples::elf({.pvh_entry = {}})), "bzImage"));
  CHECK(contains(refusal(samples::elf({.pvh_entry = {}})), "CONFIG_PVH"));
}

TEST_CASE("ELF: files of another machine, class or type are named") {
  CHECK(contains(refusal(samples::elf({.machine = EM_AARCH64})), "arm64"));
  CHECK(contains(refusal(samples::elf({.machine = EM_RISCV})), "RISC-V"));
  CHECK(contains(refusal(samples::elf({.type = ET_REL})), "module"));
  CHECK(contains(refusal(samples::elf({.type = ET_CORE})), "core dump"));
  Bytes small = samples::elf();
  small[EI_CLASS] = std::byte{ELFCLASS32};
  CHECK(contains(refusal(small), "32-bit"));
  Bytes big = samples::elf();
  big[EI_DATA] = std::byte{ELFDATA2MSB};
  CHECK(contains(refusal(big), "big-endian"));
}

TEST_CASE("ELF: a segment that memory does not hold, or below 1 MiB, is refused before any copy") {
  const std::string large =
      refusal(samples::elf({.address = 0x3ff000, .code_size = 8192, .pvh_entry = 0x3ff000}));
  CHECK(contains(large, "too large"));
  CHECK(contains(large, "5 MiB"));
  CHECK(contains(refusal(samples::elf({.address = 0xff000, .pvh_entry = 0xff000})), "0xff000"));
  CHECK(contains(refusal(samples::elf({.bss_size = std::uint64_t{1} << 60})), "damaged"));
  CHECK(contains(refusal(samples::elf({.address = ~std::uint64_t{0} - 100})), "damaged"));
  CHECK(contains(refusal(samples::elf(), Entry::automatic, 1000), "too large"));
}

TEST_CASE("ELF: a PVH entry outside every segment is refused") {
  CHECK(contains(refusal(samples::elf({.pvh_entry = 0x200000})), "0x200000"));
}

TEST_CASE("ELF: the bzImage entry is refused for a plain ELF") {
  CHECK(contains(refusal(samples::elf(), Entry::bzimage), "no bzImage entry"));
}

TEST_CASE("ELF: bytes behind the last segment do not matter (the relocation table)") {
  Bytes file = samples::elf();
  file.resize(file.size() + 4096, std::byte{0xff});
  Bytes ram = samples::dirty_ram(kRam);
  CHECK(load_kernel(file, ram, Entry::automatic).has_value());
}

TEST_CASE("ELF: a note whose sizes run over the segment ends the search") {
  const Bytes file = samples::elf();
  const auto notes_at = sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr);
  for (const std::uint32_t size : {0x7fff'ffffu, 0xffff'fffeu, 0xffff'ffffu}) {
    for (const std::size_t field : {std::size_t{0}, std::size_t{4}}) {
      Bytes hostile = file;
      store<std::uint32_t>(hostile, notes_at + field, size);
      CHECK(contains(refusal(hostile), "PVH"));
    }
  }
}
