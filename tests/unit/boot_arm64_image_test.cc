// Linux Documentation/arch/arm64/booting.rst: the Image, its packings, and what lies beside it.
#include <cstring>
#include <random>
#include <string>

#include "boot/arm64_image.h"
#include "boot/arm64_start.h"
#include "tests/unit/boot_samples.h"

using namespace outboard::boot;
using samples::Bytes;

namespace {

constexpr std::uint64_t kRamBase = 0x4000'0000;
constexpr std::size_t kMiB = std::size_t{1} << 20;

struct ImageOptions {
  std::uint64_t text_offset = 0;
  std::uint64_t image_size = 0x8000;  // with what the file does not have: bss
  std::uint64_t flags = 0xa;          // little-endian, 4 KiB pages, anywhere
  std::size_t file_size = 0x5000;
  bool efi = true;  // with a section table, as every kernel with an EFI stub
};

Bytes image(const ImageOptions& options = {}) {
  Bytes file = samples::code(options.file_size);
  std::fill_n(file.begin(), 0x200, std::byte{0});
  store<std::uint64_t>(file, 8, options.text_offset);
  store<std::uint64_t>(file, 16, options.image_size);
  store<std::uint64_t>(file, 24, options.flags);
  std::memcpy(file.data() + 56, "ARM\x64", 4);
  if (options.efi) {
    constexpr std::size_t kPe = 0x40;
    std::memcpy(file.data(), "MZ", 2);
    store<std::uint32_t>(file, 0x3c, kPe);
    std::memcpy(file.data() + kPe, "PE\0\0", 4);
    store<std::uint16_t>(file, kPe + 6, 1);     // one section
    store<std::uint16_t>(file, kPe + 20, 160);  // bytes of the optional header
    const std::size_t section = kPe + 24 + 160;
    store<std::uint32_t>(file, section + 16,
                         static_cast<std::uint32_t>(options.file_size - 0x1000));
    store<std::uint32_t>(file, section + 20, 0x1000);
  }
  return file;
}

// The header of an EFI zboot image (Linux drivers/firmware/efi/libstub/zboot-header.S), and the
// payload, whose unpacked size follows it except with gzip.
Bytes zboot(const Bytes& packed, std::size_t unpacked_size, std::string_view name) {
  constexpr std::size_t kPayload = 0x400;
  Bytes file(kPayload, std::byte{0});
  std::memcpy(file.data(), "MZ\0\0zimg", 8);
  store<std::uint32_t>(file, 8, kPayload);
  store<std::uint32_t>(file, 12, static_cast<std::uint32_t>(packed.size()));
  std::memcpy(file.data() + 24, name.data(), name.size());
  file.insert(file.end(), packed.begin(), packed.end());
  if (name != "gzip") {
    file.resize(file.size() + 4);
    store<std::uint32_t>(file, file.size() - 4, static_cast<std::uint32_t>(unpacked_size));
  }
  return file;
}

std::string refusal(const Bytes& file, std::size_t ram_size = 2 * kMiB) {
  Bytes ram(ram_size);
  const auto kernel = load_arm64_kernel(file, ram, kRamBase);
  REQUIRE_FALSE(kernel.has_value());
  CHECK(kernel.error().message.find('\n') == std::string::npos);
  return kernel.error().message;
}

bool contains(const std::string& text, std::string_view part) {
  INFO(text);
  return text.find(part) != std::string::npos;
}

void check_loaded(const Bytes& file, const Bytes& plain, const char* compression) {
  Bytes ram = samples::dirty_ram(2 * kMiB);
  const auto kernel = load_arm64_kernel(file, ram, kRamBase);
  REQUIRE_MESSAGE(kernel.has_value(), kernel.error().message);
  CHECK(kernel->protocol == Protocol::arm64);
  CHECK(kernel->entry == kRamBase);
  CHECK(kernel->end == kRamBase + 0x8000);
  CHECK(kernel->compression == compression);
  CHECK(std::equal(plain.begin(), plain.end(), ram.begin()));
  // What is behind the file is zero, what is behind the image is not touched.
  CHECK(std::all_of(ram.begin() + 0x5000, ram.begin() + 0x8000,
                    [](std::byte byte) { return byte == std::byte{0}; }));
  CHECK(ram[0x8000] == std::byte{0xaa});
}

}  // namespace

TEST_CASE("booting.rst: an Image is placed text_offset above the start of RAM and entered there") {
  check_loaded(image(), image(), "");
  const Bytes file = image({.text_offset = 0x8'0000});
  Bytes ram(2 * kMiB);
  const auto kernel = load_arm64_kernel(file, ram, kRamBase);
  REQUIRE(kernel.has_value());
  CHECK(kernel->entry == kRamBase + 0x8'0000);
  CHECK(std::equal(file.begin(), file.end(), ram.begin() + 0x8'0000));
  CHECK(kernel->said.empty());
}

TEST_CASE("an Image is found in a gzip stream") {
  check_loaded(samples::pack_gzip(image()), image(), "gzip");
}

TEST_CASE("an Image is found in an EFI zboot image of every compression") {
  for (const samples::Packer& packer : samples::kPackers) {
    CAPTURE(packer.name);
    check_loaded(zboot(packer.pack(image()), image().size(), packer.name), image(), packer.name);
  }
}

TEST_CASE("booting.rst: flags: a big-endian kernel is refused, large pages are said") {
  CHECK(contains(refusal(image({.flags = 0xb})), "big-endian"));
  Bytes ram(2 * kMiB);
  const auto kernel = load_arm64_kernel(image({.flags = 0xe}), ram, kRamBase);
  REQUIRE(kernel.has_value());
  CHECK(contains(kernel->said, "64 KiB"));
}

TEST_CASE("an Image that is damaged, truncated or too large is refused in one line") {
  CHECK(contains(refusal(image({.image_size = 0})), "3.17"));
  CHECK(contains(refusal(image({.image_size = 12})), "damaged"));
  CHECK(contains(refusal(image({.text_offset = 2 * kMiB})), "text offset"));
  CHECK(contains(refusal(image({.image_size = 2 * kMiB + 1})), "too large"));
  CHECK(contains(refusal(image({.image_size = 2 * kMiB + 1})), "3 MiB"));
  CHECK(contains(refusal(image({.image_size = ~std::uint64_t{0}})), "too large"));
  CHECK(contains(refusal(image({.text_offset = 0x1f'f000})), "too large"));
  Bytes cut = image();
  cut.resize(0x4fff);
  CHECK(contains(refusal(cut), "truncated"));
  cut.resize(60);
  CHECK(contains(refusal(cut), "truncated arm64 Image"));
}

TEST_CASE("a packed Image: sizes that the file claims are not believed") {
  const Bytes packed = samples::pack_zstd(image());
  CHECK(contains(refusal(zboot(packed, std::size_t{3} << 30, "zstd")), "too large"));
  CHECK(contains(refusal(zboot(packed, 100 * kMiB, "zstd"), 64 * kMiB), "too large"));
  CHECK_FALSE(refusal(zboot(packed, image().size() + 1, "zstd")).empty());
  Bytes far = zboot(packed, image().size(), "zstd");
  store<std::uint32_t>(far, 8, 0xffff'ff00);
  CHECK(contains(refusal(far), "outside"));
  Bytes long_one = zboot(packed, image().size(), "zstd");
  store<std::uint32_t>(long_one, 12, 0xffff'ffff);
  CHECK(contains(refusal(long_one), "outside"));
  CHECK(contains(refusal(zboot(samples::code(5000), 5000, "lzfse")), "cannot be unpacked"));
  const Bytes other = samples::pack_gzip(samples::elf());
  CHECK(contains(refusal(other), "another machine"));
}

TEST_CASE("an x86 kernel on arm64 is named, and an arm64 one on x86") {
  const Bytes packed = samples::pack_lz4(samples::elf());
  CHECK(contains(refusal(samples::bzimage(packed, samples::elf().size())),
                 "x86 bzImage; this machine needs an arm64 Image"));
  CHECK(contains(refusal(samples::elf()), "needs an arm64 Image"));
  CHECK(contains(refusal(samples::elf({.machine = EM_AARCH64})), "the Image built from it"));
  Bytes ram(2 * kMiB);
  for (const Bytes& file :
       {image(), samples::pack_gzip(image()), zboot(samples::pack_xz(image()), 1, "xzkern")}) {
    const auto kernel = load_kernel(file, ram, Entry::automatic);
    REQUIRE_FALSE(kernel.has_value());
    CHECK(contains(kernel.error().message, "needs an x86-64 vmlinux or bzImage"));
  }
}

TEST_CASE("hostile: an Image cut at any length or with flipped bytes is loaded or refused") {
  const Bytes plain = image({.image_size = 0x6000, .file_size = 0x1400});
  const Bytes samples_of[] = {plain, samples::pack_gzip(plain),
                              zboot(samples::pack_zstd(plain), plain.size(), "zstd")};
  Bytes ram(2 * kMiB);
  std::mt19937 random(1);
  for (const Bytes& good : samples_of) {
    for (std::size_t size = 0; size < good.size(); size += size < 0x500 ? 1 : 37) {
      const Bytes cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size));
      static_cast<void>(load_arm64_kernel(cut, ram, kRamBase));
    }
    for (int round = 0; round < 2000; ++round) {
      Bytes bad = good;
      for (int i = 0; i < 3; ++i) {
        bad[random() % std::min<std::size_t>(bad.size(), 0x200)] = static_cast<std::byte>(random());
      }
      const auto kernel = load_arm64_kernel(bad, ram, kRamBase);
      if (kernel) CHECK(kernel->end <= kRamBase + ram.size());
      const Extent extent = expected_arm64_extent(bad, ram.size());
      CHECK(extent.address + extent.size <= ram.size());
    }
  }
}

TEST_CASE("the extent that is told beforehand is what an Image will take") {
  const Extent extent = expected_arm64_extent(image({.text_offset = 0x8'0000}), 2 * kMiB);
  CHECK(extent.address == 0x8'0000);
  CHECK(extent.size == 0x8000);
  CHECK(expected_arm64_extent(samples::pack_gzip(image()), 2 * kMiB).size == 0x5000);
  CHECK(expected_arm64_extent(samples::elf(), 2 * kMiB).size == 0);
}

TEST_CASE(
    "booting.rst: the tree is above the image in its own 2 MiB, the initrd at the end of RAM") {
  LoadedKernel kernel;
  kernel.protocol = Protocol::arm64;
  kernel.entry = kRamBase;
  kernel.end = kRamBase + 3 * kMiB + 4;
  Bytes ram = samples::dirty_ram(16 * kMiB);
  const Bytes tree = samples::code(5000);
  const Bytes initrd = samples::code(70000);
  const auto state = place_arm64_boot_data(kernel, tree, initrd, ram, kRamBase);
  REQUIRE(state.has_value());
  CHECK(state->rip == kRamBase);
  CHECK(state->info == kRamBase + 4 * kMiB);
  CHECK(std::equal(tree.begin(), tree.end(), ram.begin() + 4 * kMiB));
  CHECK(state->initrd_size == initrd.size());
  CHECK(state->initrd_base % 65536 == 0);
  CHECK(state->initrd_base + initrd.size() <= kRamBase + ram.size());
  CHECK(state->initrd_base + initrd.size() > kRamBase + ram.size() - 65536);
  CHECK(state->initrd_base == arm64_initrd_address(kRamBase, ram.size(), initrd.size()));
  CHECK(std::equal(initrd.begin(), initrd.end(),
                   ram.begin() + static_cast<std::ptrdiff_t>(state->initrd_base - kRamBase)));
}

TEST_CASE("booting.rst: an initrd stays within 32 GiB of the kernel's first") {
  constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
  const auto base = arm64_initrd_address(kRamBase, 100 * kGiB, kMiB);
  REQUIRE(base.has_value());
  CHECK(*base + kMiB <= kRamBase + 32 * kGiB);
}

TEST_CASE("no room for the tree or the initrd: one line that says what is in the way") {
  LoadedKernel kernel;
  kernel.end = kRamBase + 5 * kMiB;
  Bytes ram(8 * kMiB);
  const Bytes tree(100);
  CHECK(place_arm64_boot_data(kernel, tree, {}, ram, kRamBase).has_value());
  const Bytes one(1);
  const auto full = place_arm64_boot_data(kernel, tree, one, ram, kRamBase);
  REQUIRE_FALSE(full.has_value());
  CHECK(contains(full.error().message, "no room for the initrd"));
  kernel.end = kRamBase + 6 * kMiB + 1;
  const auto none = place_arm64_boot_data(kernel, tree, {}, ram, kRamBase);
  REQUIRE_FALSE(none.has_value());
  CHECK(contains(none.error().message, "no room for the device tree"));
}
