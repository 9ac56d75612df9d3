#include "boot/arm64_image.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "boot/bytes.h"
#include "boot/decompress.h"
#include "boot/foreign.h"
#include "boot/text.h"

namespace outboard::boot {
namespace {

constexpr std::uint64_t kPlacement = std::uint64_t{2} << 20;

// Nothing above this is unpacked, however much memory the guest has.
constexpr std::uint64_t kLargestKernel = std::uint64_t{1} << 30;

namespace header {
constexpr std::size_t kTextOffset = 8;
constexpr std::size_t kImageSize = 16;
constexpr std::size_t kFlags = 24;
constexpr std::size_t kMagic = 56;
constexpr std::size_t kSize = 64;
constexpr std::uint64_t kBigEndian = 1;
constexpr unsigned kPageShift = 1;  // two bits: unspecified, 4 KiB, 16 KiB, 64 KiB
}  // namespace header

// The fields of a PE file (Microsoft's PE Format) that say where its bytes end.
namespace pe {
constexpr std::size_t kOffset = 0x3c;  // in the DOS header
constexpr std::size_t kSections = 6;   // from the signature on
constexpr std::size_t kOptionalSize = 20;
constexpr std::size_t kHeaderSize = 24;
constexpr std::size_t kSectionSize = 40;
constexpr std::size_t kRawSize = 16;  // in a section header
constexpr std::size_t kRawOffset = 20;
}  // namespace pe

// Linux drivers/firmware/efi/libstub/zboot-header.S.
namespace zboot {
constexpr std::size_t kMagic = 4;
constexpr std::size_t kPayloadOffset = 8;
constexpr std::size_t kPayloadSize = 12;
constexpr std::size_t kHeaderSize = 64;
}  // namespace zboot

bool is_zboot(std::span<const std::byte> file) {
  return has_magic(file, 0, "MZ") && has_magic(file, zboot::kMagic, "zimg");
}

// Where the file must end at least, by its EFI stub's section table; 0 if it has none.
std::uint64_t end_of_sections(std::span<const std::byte> file) {
  if (!has_magic(file, 0, "MZ")) return 0;
  const std::uint64_t at = load<std::uint32_t>(file, pe::kOffset);
  if (!fits(at, pe::kHeaderSize, file.size()) || !has_magic(file, at, {"PE\0\0", 4})) return 0;
  const auto count = load<std::uint16_t>(file, at + pe::kSections);
  std::uint64_t section = at + pe::kHeaderSize + load<std::uint16_t>(file, at + pe::kOptionalSize);
  std::uint64_t end = 0;
  for (unsigned i = 0; i < count && fits(section, pe::kSectionSize, file.size()); ++i) {
    end = std::max(end, std::uint64_t{load<std::uint32_t>(file, section + pe::kRawOffset)} +
                            load<std::uint32_t>(file, section + pe::kRawSize));
    section += pe::kSectionSize;
  }
  return end;
}

struct Packed {
  Compression compression = Compression::gzip;
  std::span<const std::byte> stream;
  std::uint64_t unpacked_size = 0;  // as the file says: not to be trusted
};

// A gzip stream ends with its unpacked size (RFC 1952 §2.3.1); zboot appends it to the others.
Result<Packed> parse_zboot(std::span<const std::byte> file) {
  if (file.size() < zboot::kHeaderSize) return fail("is truncated: its EFI header is cut off");
  const std::uint64_t at = load<std::uint32_t>(file, zboot::kPayloadOffset);
  const std::uint64_t size = load<std::uint32_t>(file, zboot::kPayloadSize);
  if (!fits(at, size, file.size()) || size < 8) {
    return fail("is truncated or damaged: its EFI zboot payload, " + std::to_string(size) +
                " bytes at " + hex(at) + ", lies outside the file's " +
                std::to_string(file.size()));
  }
  const auto stream = file.subspan(at, size);
  const auto compression = detect_compression(stream);
  if (!compression) {
    return fail(
        "is an EFI zboot image compressed in a way that cannot be unpacked here; give the "
        "Image itself");
  }
  const std::uint64_t size_at = *compression == Compression::gzip ? at + size - 4 : at + size;
  if (!fits(size_at, 4, file.size())) return fail("is truncated behind its EFI zboot payload");
  return Packed{*compression, stream, load<std::uint32_t>(file, size_at)};
}

Result<Packed> parse_packed(std::span<const std::byte> file) {
  if (is_zboot(file)) return parse_zboot(file);
  if (file.size() < 18)
    return fail("is truncated: a gzip stream of " + std::to_string(file.size()) +
                " bytes holds no kernel");
  return Packed{Compression::gzip, file, load<std::uint32_t>(file, file.size() - 4)};
}

Result<LoadedKernel> place(std::span<const std::byte> file, std::span<std::byte> ram,
                           std::uint64_t ram_base) {
  const auto image = parse_arm64_image(file);
  if (!image) return tl::make_unexpected(image.error());
  if (!fits(image->text_offset, image->image_size, ram.size())) {
    return fail("is too large: it takes " + mebibytes(image->image_size) + " from " +
                mebibytes(image->text_offset) + " on and the machine has " + mebibytes(ram.size()) +
                "; raise the machine's memory");
  }
  const auto room = ram.subspan(image->text_offset, image->image_size);
  // Behind what the kernel is, a file may carry a signature.
  const auto bytes = file.first(std::min<std::uint64_t>(file.size(), image->image_size));
  std::ranges::copy(bytes, room.begin());
  std::ranges::fill(room.subspan(bytes.size()), std::byte{0});

  LoadedKernel kernel;
  kernel.protocol = Protocol::arm64;
  kernel.entry = ram_base + image->text_offset;
  kernel.end = kernel.entry + image->image_size;
  if (image->page_kib > 4) {
    kernel.said = "has pages of " + std::to_string(image->page_kib) +
                  " KiB; on a CPU without them it stops at once, with no word on the console";
  }
  return kernel;
}

Result<LoadedKernel> load_packed(std::span<const std::byte> file, std::span<std::byte> ram,
                                 std::uint64_t ram_base, UnpackedStore* store) {
  const auto packed = parse_packed(file);
  if (!packed) return tl::make_unexpected(packed.error());
  if (packed->unpacked_size > std::min<std::uint64_t>(ram.size(), kLargestKernel)) {
    return fail("is too large: it unpacks to " + mebibytes(packed->unpacked_size) +
                " and the machine has " + mebibytes(ram.size()) + "; raise the machine's memory");
  }
  std::span<const std::byte> bytes;
  if (store != nullptr) bytes = store->find();
  std::optional<Unpacked> unpacked;
  if (bytes.size() != packed->unpacked_size || !is_arm64_image(bytes)) {
    auto fresh = decompress(packed->compression, packed->stream, packed->unpacked_size);
    if (!fresh) return tl::make_unexpected(fresh.error());
    unpacked.emplace(std::move(*fresh));
    bytes = std::as_const(*unpacked).span();
    if (!is_arm64_image(bytes)) {
      return fail("holds, unpacked, something that " + describe_foreign(bytes, Wanted::arm64));
    }
    if (store != nullptr) store->keep(bytes);
  }
  auto kernel = place(bytes, ram, ram_base);
  if (kernel) kernel->compression = compression_name(packed->compression);
  return kernel;
}

}  // namespace

bool is_arm64_image(std::span<const std::byte> file) {
  return file.size() >= header::kSize && has_magic(file, header::kMagic, "ARM\x64");
}

bool is_packed_arm64(std::span<const std::byte> file) {
  return is_zboot(file) || (!is_arm64_image(file) && has_magic(file, 0, "\x1f\x8b"));
}

Result<Arm64Image> parse_arm64_image(std::span<const std::byte> file) {
  if (!is_arm64_image(file)) return fail(describe_foreign(file, Wanted::arm64));
  Arm64Image image;
  image.text_offset = load<std::uint64_t>(file, header::kTextOffset);
  image.image_size = load<std::uint64_t>(file, header::kImageSize);
  const auto flags = load<std::uint64_t>(file, header::kFlags);
  if (image.image_size == 0) {
    return fail(
        "is an arm64 Image from before Linux 3.17, which does not say how large it is; "
        "give a newer kernel");
  }
  if ((flags & header::kBigEndian) != 0) {
    return fail("is a big-endian arm64 kernel; give a little-endian one");
  }
  if (image.text_offset >= kPlacement || image.text_offset % 4 != 0) {
    return fail("is damaged: its text offset " + hex(image.text_offset) + " is no place below " +
                mebibytes(kPlacement));
  }
  if (image.image_size < header::kSize) {
    return fail("is damaged: it says it takes " + std::to_string(image.image_size) +
                " bytes in memory");
  }
  if (const std::uint64_t end = end_of_sections(file); end > file.size()) {
    return fail("is truncated: its sections end at byte " + std::to_string(end) +
                " and the file has " + std::to_string(file.size()));
  }
  constexpr std::uint32_t kPageKib[] = {0, 4, 16, 64};
  image.page_kib = kPageKib[flags >> header::kPageShift & 3];
  return image;
}

Result<LoadedKernel> load_arm64_kernel(std::span<const std::byte> file, std::span<std::byte> ram,
                                       std::uint64_t ram_base, UnpackedStore* store) {
  return is_packed_arm64(file) ? load_packed(file, ram, ram_base, store)
                               : place(file, ram, ram_base);
}

Extent expected_arm64_extent(std::span<const std::byte> file, std::uint64_t ram_size) {
  Extent extent;
  if (is_packed_arm64(file)) {
    const auto packed = parse_packed(file);
    if (!packed) return {};
    extent.size = packed->unpacked_size;
  } else {
    const auto image = parse_arm64_image(file);
    if (!image) return {};
    extent = {image->text_offset, image->image_size};
  }
  if (extent.address >= ram_size) return {};
  extent.size = std::min(extent.size, ram_size - extent.address);
  return extent;
}

}  // namespace outboard::boot
