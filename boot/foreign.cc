#include "boot/foreign.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "boot/bytes.h"
#include "boot/decompress.h"

namespace outboard::boot {
namespace {

using namespace std::string_view_literals;

struct Known {
  std::size_t offset;
  std::string_view magic;
  std::string_view said;
};

constexpr std::string_view kInitrd =
    "is an initrd (a cpio archive), not a kernel; give it as initrd and a vmlinux or bzImage as "
    "path";

// The order matters: an arm64 Image with an EFI stub also starts with "MZ".
constexpr std::array kKnown{
    Known{56, "ARM\x64"sv, "is an arm64 Image; this machine needs an x86-64 vmlinux or bzImage"sv},
    Known{56, "RSC\x05"sv, "is a RISC-V Image; this machine needs an x86-64 vmlinux or bzImage"sv},
    Known{
        4, "zimg"sv,
        "is an EFI zboot image, as arm64 and RISC-V use; this machine needs an x86-64 vmlinux or bzImage"sv},
    Known{0, "MZ"sv, "is an EFI or Windows program; give a Linux x86-64 vmlinux or bzImage"sv},
    Known{0, "070701"sv, kInitrd},
    Known{0, "070702"sv, kInitrd},
    Known{0, "\xc7\x71"sv, kInitrd},
    Known{0, "\xd0\x0d\xfe\xed"sv, "is a device tree, not a kernel; give a vmlinux or bzImage"sv},
    Known{0, "\x27\x05\x19\x56"sv, "is a U-Boot image; give the vmlinux or bzImage inside it"sv},
    Known{0, "QFI\xfb"sv,
          "is a qcow2 disk image; give the kernel, and the disk to a device server"sv},
    Known{0x438, "\x53\xef"sv,
          "is an ext4 file system; give the kernel, and the disk to a device server"sv},
    Known{510, "\x55\xaa"sv, "is a disk image; give the kernel, and the disk to a device server"sv},
    Known{0, "!<arch>\n"sv,
          "is an archive or a Debian package; unpack it and give the vmlinuz inside"sv},
    Known{257, "ustar"sv, "is a tar archive; unpack it and give the vmlinux or bzImage inside"sv},
};

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
    return "is a gzip-compressed arm64 Image; this machine needs an x86-64 vmlinux or bzImage";
  }
  if (has_magic(inside, 0, "07070")) {
    return "is a gzip-compressed initrd, not a kernel; give it as initrd and a vmlinux or bzImage "
           "as path";
  }
  if (has_magic(inside, 0, "\177ELF")) {
    return "is a gzip-compressed ELF file; unpack it with gunzip, or give the bzImage";
  }
  return "is a " + name +
         "-compressed file (an initrd?), not a kernel; unpack it first, or give a bzImage";
}

}  // namespace

std::string describe_foreign(std::span<const std::byte> file) {
  if (file.empty()) return "is empty; give an x86-64 vmlinux or bzImage";
  for (const Known& known : kKnown) {
    if (has_magic(file, known.offset, known.magic)) return std::string(known.said);
  }
  if (const auto compression = detect_compression(file)) {
    return describe_packed(*compression, file);
  }
  if (is_text(file.first(std::min<std::size_t>(file.size(), 512)))) {
    return "is a text file, not a kernel; give an x86-64 vmlinux or bzImage";
  }
  if (file.size() < 1024) {
    return "is no kernel: only " + std::to_string(file.size()) +
           " bytes, truncated or something else; give an x86-64 vmlinux or bzImage";
  }
  return "is no kernel that this machine knows; give an x86-64 vmlinux or bzImage";
}

}  // namespace outboard::boot
