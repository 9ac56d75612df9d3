// Hostile images: whatever the bytes are, load_kernel() returns a kernel inside the guest's memory
// or one line, and reads nothing outside its spans (the sanitizers watch).
#include <random>
#include <string>

#include "boot/kernel.h"
#include "boot/start.h"
#include "tests/unit/boot_samples.h"

using namespace outboard::boot;
using samples::Bytes;

namespace {

constexpr std::size_t kRam = std::size_t{3} << 20;

// The file in an allocation of exactly its size, so that one byte too far is seen.
void load_and_check(std::span<const std::byte> bytes, std::span<std::byte> ram) {
  const Bytes file(bytes.begin(), bytes.end());
  for (const Entry entry : {Entry::automatic, Entry::bzimage}) {
    const auto kernel = load_kernel(file, ram, entry);
    if (!kernel) {
      REQUIRE_FALSE(kernel.error().message.empty());
      REQUIRE(kernel.error().message.size() < 400);
      continue;
    }
    REQUIRE(kernel->end <= ram.size());
    REQUIRE(kernel->entry < ram.size());
    const MemoryRange memory{0, ram.size(), MemoryRange::Kind::ram};
    const Bytes initrd(1000);
    const auto state = place_boot_data(
        *kernel,
        {.memory = {&memory, 1}, .command_line = "quiet", .initrd = initrd, .rsdp = 0xe0000}, ram);
    if (state) REQUIRE(state->initrd_base >= kernel->end);
  }
}

Bytes small_bzimage(const samples::Packer& packer) {
  const Bytes elf = samples::elf({.code_size = 600});
  return samples::bzimage(packer.pack(elf), elf.size(), {.init_size = 0x10000});
}

}  // namespace

TEST_CASE("hostile: an ELF cut at every length is refused") {
  const Bytes file = samples::elf({.code_size = 600});
  Bytes ram(kRam);
  for (std::size_t size = 0; size < file.size(); ++size) {
    const Bytes cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size));
    const auto kernel = load_kernel(cut, ram, Entry::automatic);
    REQUIRE_FALSE(kernel.has_value());
    REQUIRE_FALSE(kernel.error().message.empty());
  }
}

TEST_CASE("hostile: a bzImage cut at every length before its payload's end is refused") {
  for (const auto& packer : samples::kPackers) {
    const Bytes file = small_bzimage(packer);
    const std::size_t payload_end = file.size() - 64;
    Bytes ram(kRam);
    for (std::size_t size = 0; size < payload_end; ++size) {
      const Bytes cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size));
      REQUIRE_FALSE(load_kernel(cut, ram, Entry::automatic).has_value());
    }
  }
}

TEST_CASE("hostile: random bytes in an ELF's headers and notes") {
  const Bytes file = samples::elf({.code_size = 600});
  const std::size_t headers = file.size() - 600;
  std::mt19937 random(20240901);
  Bytes ram(kRam);
  for (int round = 0; round < 10000; ++round) {
    Bytes hostile = file;
    for (std::uint32_t flips = 1 + random() % 4; flips != 0; --flips) {
      hostile[random() % headers] = static_cast<std::byte>(random() % 3 == 0 ? 0xff : random());
    }
    load_and_check(hostile, ram);
  }
}

TEST_CASE("hostile: random bytes in a bzImage's setup header and payload") {
  std::mt19937 random(20240902);
  Bytes ram(kRam);
  for (const auto& packer : samples::kPackers) {
    CAPTURE(std::string(packer.name));
    const Bytes file = small_bzimage(packer);
    const std::size_t payload_at = samples::kSetupSize + samples::kPayloadAt;
    for (int round = 0; round < 300; ++round) {
      Bytes hostile = file;
      for (std::uint32_t flips = 1 + random() % 4; flips != 0; --flips) {
        const std::size_t at = random() % 2 == 0
                                   ? 0x1f1 + random() % (0x26c - 0x1f1)
                                   : payload_at + random() % (file.size() - payload_at);
        hostile[at] = static_cast<std::byte>(random() % 3 == 0 ? 0xff : random());
      }
      load_and_check(hostile, ram);
    }
  }
}
