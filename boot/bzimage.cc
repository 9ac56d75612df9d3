#include "boot/bzimage.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "boot/bytes.h"
#include "boot/start.h"
#include "boot/text.h"

namespace outboard::boot {
namespace {

constexpr std::size_t kSetupSects = 0x1f1;
constexpr std::size_t kJumpOffset = 0x201;
constexpr std::size_t kMagic = 0x202;  // "HdrS"
constexpr std::size_t kVersion = 0x206;
constexpr std::size_t kKernelVersion = 0x20e;
constexpr std::size_t kLoadflags = 0x211;
constexpr std::size_t kKernelAlignment = 0x230;
constexpr std::size_t kRelocatable = 0x234;
constexpr std::size_t kXloadflags = 0x236;
constexpr std::size_t kPayloadOffset = 0x248;
constexpr std::size_t kPayloadLength = 0x24c;
constexpr std::size_t kPrefAddress = 0x258;
constexpr std::size_t kInitSize = 0x260;
constexpr std::size_t kHeaderEnd212 = 0x264;  // what protocol 2.12 has at least

constexpr std::uint16_t kProtocol212 = 0x020c;  // xloadflags; Linux 3.8
constexpr std::uint8_t kLoadedHigh = 0x01;
constexpr std::uint16_t kKernel64 = 0x0001;
constexpr std::size_t kSector = 512;

std::string read_version(std::span<const std::byte> setup, std::uint16_t pointer) {
  constexpr std::size_t kLongest = 256;
  const std::size_t start = std::size_t{pointer} + 0x200;
  if (pointer == 0 || start >= setup.size()) return {};
  const auto text = setup.subspan(start, std::min(kLongest, setup.size() - start));
  const auto end = std::find(text.begin(), text.end(), std::byte{0});
  std::string version(reinterpret_cast<const char*>(text.data()),
                      static_cast<std::size_t>(end - text.begin()));
  std::erase_if(version, [](char c) { return c < ' ' || c > '~'; });
  return version;
}

}  // namespace

bool is_bzimage(std::span<const std::byte> file) {
  return has_magic(file, kMagic, "HdrS");
}

Result<BzImage> parse_bzimage(std::span<const std::byte> file) {
  if (file.size() < kHeaderEnd212) {
    return fail("is truncated within its setup header; copy it again");
  }
  const auto version = load<std::uint16_t>(file, kVersion);
  if (version < kProtocol212) {
    return fail("is a bzImage of boot protocol " + std::to_string(version >> 8) + "." +
                std::to_string(version & 0xff) + "; Linux 3.8 (2.12) or newer is needed");
  }
  if ((load<std::uint8_t>(file, kLoadflags) & kLoadedHigh) == 0) {
    return fail("is a zImage, loaded below 1 MiB; give a bzImage or a vmlinux");
  }
  const std::size_t sectors = load<std::uint8_t>(file, kSetupSects);
  const std::size_t setup_size = ((sectors == 0 ? 4 : sectors) + 1) * kSector;
  const std::size_t header_end = kMagic + load<std::uint8_t>(file, kJumpOffset);
  if (header_end < kHeaderEnd212) return fail("is damaged: its setup header is too short");
  if (setup_size >= file.size() || header_end > file.size()) {
    return fail("is truncated: " + std::to_string(file.size()) +
                " bytes, and its setup code alone has " + std::to_string(setup_size) +
                "; copy it again");
  }

  BzImage image;
  image.setup_header = file.subspan(kSetupHeaderOffset, header_end - kSetupHeaderOffset);
  image.protected_mode = file.subspan(setup_size);
  const std::uint64_t offset = load<std::uint32_t>(file, kPayloadOffset);
  const std::uint64_t length = load<std::uint32_t>(file, kPayloadLength);
  if (!fits(offset, length, image.protected_mode.size())) {
    return fail("is truncated: its payload ends at byte " +
                std::to_string(setup_size + offset + length) + " of " +
                std::to_string(file.size()) + "; copy it again");
  }
  image.payload = image.protected_mode.subspan(offset, length);
  if (image.payload.size() >= 4) {
    image.unpacked_size = load<std::uint32_t>(image.payload, image.payload.size() - 4);
  }
  image.entry64 = (load<std::uint16_t>(file, kXloadflags) & kKernel64) != 0;
  image.relocatable = load<std::uint8_t>(file, kRelocatable) != 0;
  image.alignment = load<std::uint32_t>(file, kKernelAlignment);
  image.preferred_address = load<std::uint64_t>(file, kPrefAddress);
  image.init_size = load<std::uint32_t>(file, kInitSize);
  image.version = read_version(file.first(setup_size), load<std::uint16_t>(file, kKernelVersion));
  return image;
}

Result<std::uint64_t> place_bzimage(const BzImage& image, std::span<std::byte> ram) {
  const std::uint64_t size = std::max<std::uint64_t>(image.init_size, image.protected_mode.size());
  const auto usable = [&](std::uint64_t address) {
    return address >= kKernelFloor && fits(address, size, ram.size());
  };
  std::uint64_t address = image.preferred_address;
  if (!usable(address)) {
    if (image.relocatable && std::has_single_bit(image.alignment)) {
      address = align_up(kKernelFloor, image.alignment);
    }
    if (!usable(address)) {
      return fail("is too large: it needs " + mebibytes(size) + " of memory from " + hex(address) +
                  " on and the machine has " + mebibytes(ram.size()) +
                  " below the PCI hole; raise the machine's memory");
    }
  }
  std::memcpy(ram.data() + address, image.protected_mode.data(), image.protected_mode.size());
  return address;
}

}  // namespace outboard::boot
