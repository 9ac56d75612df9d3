#include <cstring>
#include <string>

#include "boot/kernel.h"
#include "tests/unit/boot_samples.h"

using namespace outboard::boot;
using samples::Bytes;

namespace {

Bytes with_magic(std::size_t size, std::size_t offset, std::string_view magic) {
  Bytes bytes(size, std::byte{0x01});
  std::memcpy(bytes.data() + offset, magic.data(), magic.size());
  return bytes;
}

void check_refusal(const Bytes& file, std::string_view part) {
  Bytes ram(std::size_t{2} << 20);
  const auto kernel = load_kernel(file, ram, Entry::automatic);
  REQUIRE_FALSE(kernel.has_value());
  CAPTURE(kernel.error().message);
  CHECK(kernel.error().message.find(part) != std::string::npos);
  CHECK(kernel.error().message.find('\n') == std::string::npos);
}

}  // namespace

TEST_CASE("foreign: what is no kernel is named, with the remedy") {
  check_refusal({}, "is empty");
  check_refusal(with_magic(4096, 56, "ARM\x64"), "arm64 Image");
  check_refusal(with_magic(4096, 56, "RSC\x05"), "RISC-V");
  check_refusal(with_magic(4096, 0, std::string_view("MZ\0\0zimg", 8)), "zboot");
  check_refusal(with_magic(4096, 0, "MZ"), "EFI");
  check_refusal(with_magic(4096, 0, "070701"), "give it as initrd");
  check_refusal(with_magic(4096, 0, "QFI\xfb"), "qcow2");
  check_refusal(with_magic(4096, 0x438, "\x53\xef"), "ext4");
  check_refusal(with_magic(4096, 510, "\x55\xaa"), "disk image");
  check_refusal(with_magic(4096, 0, "\x28\xb5\x2f\xfd"), "zstd-compressed");
  check_refusal(with_magic(4096, 0, "!<arch>\n"), "Debian package");
  check_refusal(with_magic(4096, 100, "?"), "no kernel");
  check_refusal(with_magic(20, 0, "?"), "only 20 bytes");
  Bytes text(3000);
  for (std::size_t i = 0; i < text.size(); ++i)
    text[i] = static_cast<std::byte>(i % 40 == 0 ? '\n' : 'x');
  check_refusal(text, "text file");
}

TEST_CASE("foreign: what a gzip file holds is named") {
  check_refusal(samples::pack_gzip(with_magic(4096, 56, "ARM\x64")), "gzip-compressed arm64 Image");
  check_refusal(samples::pack_gzip(with_magic(4096, 0, "070701")), "gzip-compressed initrd");
  check_refusal(samples::pack_gzip(samples::elf()), "gunzip");
  check_refusal(samples::pack_gzip(with_magic(4096, 100, "?")), "gzip-compressed file");
}
