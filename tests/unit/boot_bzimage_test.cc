#include <algorithm>
#include <string>

#include "boot/bzimage.h"
#include "boot/kernel.h"
#include "tests/unit/boot_samples.h"

using namespace outboard::boot;
using samples::Bytes;

namespace {

constexpr std::size_t kRam = std::size_t{4} << 20;

Bytes packed_kernel(const samples::BzImageOptions& options = {},
                    const samples::ElfOptions& elf_options = {}) {
  const Bytes elf = samples::elf(elf_options);
  return samples::bzimage(samples::pack_lz4(elf), elf.size(), options);
}

std::string refusal(const Bytes& file, Entry entry = Entry::automatic,
                    std::size_t ram_size = kRam) {
  Bytes ram = samples::dirty_ram(ram_size);
  const auto kernel = load_kernel(file, ram, entry);
  REQUIRE_FALSE(kernel.has_value());
  return kernel.error().message;
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("bzImage: every compression unpacks to the kernel that went in") {
  // Big enough for several blocks of each format; behind the ELF comes what stands for the kernel's
  // relocation table.
  const samples::ElfOptions options{.code_size = (std::size_t{9} << 20) + 123};
  Bytes elf = samples::elf(options);
  const Bytes code = samples::code(options.code_size);
  elf.resize(elf.size() + 1000, std::byte{0x5a});
  for (const auto& packer : samples::kPackers) {
    CAPTURE(std::string(packer.name));
    const Bytes file = samples::bzimage(packer.pack(elf), elf.size());
    Bytes ram = samples::dirty_ram(std::size_t{16} << 20);
    const auto kernel = load_kernel(file, ram, Entry::automatic);
    REQUIRE_MESSAGE(kernel.has_value(), kernel.error().message);
    CHECK(kernel->protocol == Protocol::pvh);
    CHECK(kernel->entry == 0x100010);
    CHECK(kernel->compression == packer.name);
    CHECK(kernel->version == "6.1.0-test (someone)");
    CHECK(std::equal(code.begin(), code.end(), ram.begin() + 0x100000));
  }
}

TEST_CASE("bzImage: a payload cut or with a wrong size is damaged, whatever its compression") {
  const Bytes elf = samples::elf();
  for (const auto& packer : samples::kPackers) {
    CAPTURE(std::string(packer.name));
    const Bytes packed = packer.pack(elf);
    const Bytes cut(packed.begin(),
                    packed.begin() + static_cast<std::ptrdiff_t>(packed.size() / 2));
    CHECK(contains(refusal(samples::bzimage(cut, elf.size())), "damaged"));
    CHECK(contains(refusal(samples::bzimage(packed, elf.size() + 1)), "damaged"));
    CHECK(contains(refusal(samples::bzimage(packed, elf.size() - 1)), "damaged"));
    CHECK(contains(refusal(samples::bzimage(packed, 0)), "damaged"));
  }
}

TEST_CASE("bzImage: an unpacked size beyond the guest's memory is refused before it is allocated") {
  const Bytes packed = samples::pack_lz4(samples::elf());
  CHECK(contains(refusal(samples::bzimage(packed, 0xffff'ffff)), "unpacks to 4096 MiB"));
}

TEST_CASE("LZ4 legacy: frames may follow one another") {
  const Bytes elf = samples::elf();
  const auto half = static_cast<std::ptrdiff_t>(elf.size() / 2);
  Bytes packed = samples::pack_lz4(Bytes(elf.begin(), elf.begin() + half));
  const Bytes second = samples::pack_lz4(Bytes(elf.begin() + half, elf.end()));
  packed.insert(packed.end(), second.begin(), second.end());
  Bytes ram = samples::dirty_ram(kRam);
  CHECK(load_kernel(samples::bzimage(packed, elf.size()), ram, Entry::automatic).has_value());
}

TEST_CASE("bzImage: without a PVH note it is entered by its own protocol, and one line says so") {
  const Bytes file = packed_kernel({}, {.pvh_entry = {}});
  Bytes ram = samples::dirty_ram(kRam);
  const auto kernel = load_kernel(file, ram, Entry::automatic);
  REQUIRE(kernel.has_value());
  CHECK(kernel->protocol == Protocol::linux64);
  CHECK(contains(kernel->said, "PVH"));
  CHECK(contains(kernel->said, "64-bit protocol"));
  CHECK(contains(refusal(file, Entry::pvh), "PVH"));
}

TEST_CASE("bzImage: an unknown compression is left to the kernel's own decompressor") {
  const Bytes file = samples::bzimage(Bytes(100, std::byte{0x77}), 5000);
  Bytes ram = samples::dirty_ram(kRam);
  const auto kernel = load_kernel(file, ram, Entry::automatic);
  REQUIRE(kernel.has_value());
  CHECK(kernel->protocol == Protocol::linux64);
  CHECK(contains(kernel->said, "cannot be unpacked here"));
}

TEST_CASE("boot.rst 64-bit protocol: code goes to pref_address, entry is 0x200 into it") {
  const Bytes file = packed_kernel();
  Bytes ram = samples::dirty_ram(kRam);
  const auto kernel = load_kernel(file, ram, Entry::bzimage);
  REQUIRE(kernel.has_value());
  CHECK(kernel->protocol == Protocol::linux64);
  CHECK(kernel->entry == 0x200200);
  CHECK(kernel->end == 0x240000);  // init_size
  CHECK(kernel->said.empty());
  CHECK(std::equal(file.begin() + samples::kSetupSize, file.end(), ram.begin() + 0x200000));
  REQUIRE(kernel->setup_header.size() == 0x26c - 0x1f1);
  CHECK(std::equal(kernel->setup_header.begin(), kernel->setup_header.end(), file.begin() + 0x1f1));
}

TEST_CASE("boot.rst: a relocatable kernel goes elsewhere when pref_address is beyond memory") {
  Bytes ram = samples::dirty_ram(kRam);
  const auto kernel =
      load_kernel(packed_kernel({.pref_address = 0x1000'0000}), ram, Entry::bzimage);
  REQUIRE(kernel.has_value());
  CHECK(kernel->entry == 0x200200);
  CHECK(contains(
      refusal(packed_kernel({.pref_address = 0x1000'0000, .relocatable = 0}), Entry::bzimage),
      "too large"));
  CHECK(contains(refusal(packed_kernel({.init_size = 0xffff'0000}), Entry::bzimage), "too large"));
}

TEST_CASE("bzImage: too old, 32-bit, low-loaded and truncated ones are named") {
  CHECK(contains(refusal(packed_kernel({.protocol = 0x0204})), "protocol 2.4"));
  CHECK(contains(refusal(packed_kernel({.xloadflags = 0})), "32-bit"));
  CHECK(contains(refusal(packed_kernel({.loadflags = 0})), "zImage"));
  Bytes file = packed_kernel();
  file.resize(file.size() - 200);
  CHECK(contains(refusal(file), "truncated"));
  file.resize(700);
  CHECK(contains(refusal(file), "truncated"));
}
