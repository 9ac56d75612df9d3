#include "boot/foreign.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "boot/bytes.h"
#include "boot/bzimage.h"
#include "boot/decompress.h"

namespace outboard::boot {
namespace {

using namespace std::string_view_literals;

constexpr std::string_view wanted_text(Wanted wanted) {
  return wanted == Wanted::arm64 ? "an arm64 Image"sv : "an x86-64 vmlinux or bzImage"sv;
}

// A text in which '@' stands for the kernel that is wanted.
std::string with_wanted(std::string_view said, Wanted wanted) {
  std::string text;
  for (const char c : said) {
    if (c == '@') {
      text += wanted_text(wanted);
    } else {
      text += c;
    }
  }
  return text;
}

struct Known {
  std::size_t offset;
  std::string_view magic;
  std::string_view said;
};

constexpr std::string_view kInitrd =
    "is an initrd (a cpio archive), not a kernel; give it as initrd and @ as path";

// The order matters: an arm64 Image with an EFI stub also starts with "MZ".
constexpr std::array kKnown{
    Known{56, "ARM\x64"sv, "is an arm64 Image; this machine needs @"sv},
    Known{56, "RSC\x05"sv, "is a RISC-V Image; this machine needs @"sv},
    Known{4, "zimg"sv, "is an EFI zboot image, as arm64 and RISC-V use; this machine needs @"sv},
    Known{0, "MZ"sv, "is an EFI or Windows program; give @"sv},
    Known{0, "070701"sv, kInitrd},
    Known{0, "070702"sv, kInitrd},
    Known{0, "\xc7\x71"sv, kInitrd},
    Known{0, "\xd0\x0d\xfe\xed"sv, "is a device tree, not a kernel; give @"sv},
    Known{0, "\x27\x05\x19\x56"sv, "is a U-Boot image; unpack it and give @ inside it"sv},
    Known{0, "QFI\xfb"sv,
          "is a qcow2 disk image; give the kernel, and the disk to a device server"sv},
    Known{0x438, "\x53\xef"sv,
          "is an ext4 file system; give the kernel, and the disk to a device server"sv},
    Known{510, "\x55\xaa"sv, "is a disk image; give the kernel, and the disk to a device server"sv},
    Known{0, "!<arch>\n"sv,
          "is an archive or a Debian package; unpack it and give the vmlinuz inside"sv},
    Known{257, "ustar"sv, "is a tar archive; unpack it and give @ inside"sv},
};

// What only an arm64 machine finds foreign: kernels of x86, and what is left of one of its own.
std::string_view describe_for_arm64(std::span<const std::byte> file) {
  constexpr std::size_t kMachine = 18;  // in an ELF header
  constexpr std::uint16_t kAarch64 = 183;
  if (has_magic(file, 56, "ARM\x64")) return "is a truncated arm64 Image; give all of it";
  if (is_bzimage(file)) return "is an x86 bzImage; this machine needs @";
  if (!has_magic(file, 0, "\177ELF") || !fits(kMachine, 2, file.size())) return {};
  return load<std::uint16_t>(file, kMachine) == kAarch64
             ? "is an arm64 ELF file (vmlinux); give the Image built from it"
             : "is an ELF file for another machine (an x86 vmlinux?); this machine needs @";
}

bool is_text(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte byte) {
    const auto c = std::to_integer<unsigned char>(byte);
    return c == '\n' || c == '\r' || c == '\t' || (c >= ' ' && c != 0x7f);
  });
}

std::string describe_packed(Compression compression, std::span<const std::byte> file) {
  const std::string name(compression_name(compression));
  std::array<std::byte, 4096> start;
  std::size_t known = 0;
  if (compression == Compression::gzip) known = peek_gzip(file, start);
  const auto inside = std::span<const std::byte>(start).first(known);
  if (has_magic(inside, 56, "ARM\x64")) {
    return "is a gzip-compressed arm64 Image; this machine needs @";
  }
  if (has_magic(inside, 0, "07070")) {
    return "is a gzip-compressed initrd, not a kernel; give it as initrd and @ as path";
  }
  if (has_magic(inside, 0, "\177ELF")) {
    return "is a gzip-compressed ELF file; unpack it with gunzip, or give @";
  }
  return "is a " + name + "-compressed file (an initrd?), not a kernel; unpack it first, or give @";
}

std::string describe(std::span<const std::byte> file, Wanted wanted) {
  if (file.empty()) return "is empty; give @";
  if (wanted == Wanted::arm64) {
    if (const auto said = describe_for_arm64(file); !said.empty()) return std::string(said);
  }
  for (const Known& known : kKnown) {
    if (has_magic(file, known.offset, known.magic)) return std::string(known.said);
  }
  if (const auto compression = detect_compression(file)) {
    return describe_packed(*compression, file);
  }
  if (is_text(file.first(std::min<std::size_t>(file.size(), 512)))) {
    return "is a text file, not a kernel; give @";
  }
  if (file.size() < 1024) {
    return "is no kernel: only " + std::to_string(file.size()) +
           " bytes, truncated or something else; give @";
  }
  return "is no kernel that this machine knows; give @";
}

}  // namespace

std::string describe_foreign(std::span<const std::byte> file, Wanted wanted) {
  return with_wanted(describe(file, wanted), wanted);
}

}  // namespace outboard::boot
