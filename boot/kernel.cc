#include "boot/kernel.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "boot/bytes.h"
#include "boot/bzimage.h"
#include "boot/decompress.h"
#include "boot/elf.h"
#include "boot/foreign.h"
#include "boot/start.h"
#include "boot/text.h"

namespace outboard::boot {
namespace {

constexpr std::uint64_t kEntry64Offset = 0x200;
constexpr std::string_view kNoNote = "it has no PVH entry note (CONFIG_PVH)";

// Nothing above this is unpacked, however much memory the guest has.
constexpr std::uint64_t kLargestKernel = std::uint64_t{1} << 30;

// Places a parsed ELF and enters it by its note.
Result<LoadedKernel> load_elf(const ElfKernel& elf, std::span<const std::byte> bytes,
                              std::span<std::byte> ram) {
  const auto holds_entry = [&](const ElfSegment& segment) {
    return *elf.pvh_entry >= segment.address &&
           *elf.pvh_entry - segment.address < segment.memory_size;
  };
  if (std::ranges::none_of(elf.segments, holds_entry)) {
    return fail("is damaged: its PVH entry " + hex(*elf.pvh_entry) + " lies in no segment");
  }
  if (const auto placed = place_elf(elf, bytes, ram); !placed) {
    return tl::make_unexpected(placed.error());
  }
  LoadedKernel kernel;
  kernel.protocol = Protocol::pvh;
  kernel.entry = *elf.pvh_entry;
  kernel.end = elf.end;
  return kernel;
}

Result<LoadedKernel> load_vmlinux(std::span<const std::byte> file, std::span<std::byte> ram,
                                  Entry entry) {
  const auto elf = parse_elf(file);
  if (!elf) return tl::make_unexpected(elf.error());
  if (entry == Entry::bzimage) {
    return fail(
        "is an ELF file, which has no bzImage entry; give the bzImage, or entry = \"auto\"");
  }
  if (!elf->pvh_entry) {
    return fail("cannot be entered: " + std::string(kNoNote) + "; give its bzImage instead");
  }
  return load_elf(*elf, file, ram);
}

Result<LoadedKernel> load_by_own_entry(const BzImage& image, std::span<std::byte> ram,
                                       std::string said) {
  if (!image.entry64) {
    return fail("is a 32-bit kernel (no XLF_KERNEL_64); this machine needs a 64-bit one");
  }
  const auto address = place_bzimage(image, ram);
  if (!address) return tl::make_unexpected(address.error());
  LoadedKernel kernel;
  kernel.protocol = Protocol::linux64;
  kernel.entry = *address + kEntry64Offset;
  kernel.end = *address + std::max<std::uint64_t>(image.init_size, image.protected_mode.size());
  kernel.said = std::move(said);
  return kernel;
}

// By its own entry when the user lets us choose; else the reason is the error.
Result<LoadedKernel> without_pvh(const BzImage& image, std::span<std::byte> ram, Entry entry,
                                 const std::string& reason) {
  if (entry == Entry::pvh) {
    return fail("cannot be entered by PVH: " + reason + "; use entry = \"auto\" or \"bzimage\"");
  }
  return load_by_own_entry(image, ram,
                           reason + ": entering it by the bzImage's own 64-bit protocol");
}

// The payload's bytes, from the store or unpacked here.
class Payload {
 public:
  static Result<Payload> get(const BzImage& image, Compression compression, UnpackedStore* store) {
    Payload payload;
    if (store != nullptr) {
      payload.bytes_ = store->find();
      if (payload.bytes_.size() == image.unpacked_size && is_elf(payload.bytes_)) return payload;
    }
    auto unpacked = decompress(compression, image.payload, image.unpacked_size);
    if (!unpacked) return tl::make_unexpected(unpacked.error());
    payload.unpacked_.emplace(std::move(*unpacked));
    payload.bytes_ = std::as_const(*payload.unpacked_).span();
    if (store != nullptr && is_elf(payload.bytes_)) store->keep(payload.bytes_);
    return payload;
  }

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::optional<Unpacked> unpacked_;  // moves its memory with it
  std::span<const std::byte> bytes_;
};

Result<LoadedKernel> load_unpacked(const BzImage& image, std::span<std::byte> ram, Entry entry,
                                   Compression compression, UnpackedStore* store) {
  if (image.unpacked_size > std::min<std::uint64_t>(ram.size(), kLargestKernel)) {
    return fail("is too large: it unpacks to " + mebibytes(image.unpacked_size) +
                " and the machine has " + mebibytes(ram.size()) +
                " below the PCI hole; raise the machine's memory");
  }
  const auto payload = Payload::get(image, compression, store);
  if (!payload) return tl::make_unexpected(payload.error());
  if (!is_elf(payload->bytes())) {
    return without_pvh(image, ram, entry, "its payload is no ELF file");
  }
  const auto elf = parse_elf(payload->bytes());
  if (!elf) return fail("holds an ELF file that " + elf.error().message);
  if (!elf->pvh_entry) return without_pvh(image, ram, entry, std::string(kNoNote));
  return load_elf(*elf, payload->bytes(), ram);
}

Result<LoadedKernel> load_bzimage(std::span<const std::byte> file, std::span<std::byte> ram,
                                  Entry entry, UnpackedStore* store) {
  const auto image = parse_bzimage(file);
  if (!image) return tl::make_unexpected(image.error());
  if (!image->entry64) {
    return fail("is a 32-bit kernel (no XLF_KERNEL_64); this machine needs a 64-bit one");
  }
  const auto compression = detect_compression(image->payload);
  Result<LoadedKernel> kernel =
      entry == Entry::bzimage ? load_by_own_entry(*image, ram, {})
      : !compression          ? without_pvh(*image, ram, entry,
                                            "it is compressed in a way that cannot be unpacked here")
                              : load_unpacked(*image, ram, entry, *compression, store);
  if (!kernel) return kernel;
  kernel->setup_header.assign(image->setup_header.begin(), image->setup_header.end());
  if (compression) kernel->compression = compression_name(*compression);
  kernel->version = image->version;
  return kernel;
}

}  // namespace

Extent expected_extent(std::span<const std::byte> file, std::uint64_t ram_size, Entry entry) {
  Extent extent;
  if (is_elf(file)) {
    const auto elf = parse_elf(file);
    if (!elf || elf->segments.empty()) return {};
    const auto first = std::ranges::min_element(elf->segments, {}, &ElfSegment::address);
    extent = {first->address, elf->end - first->address};
  } else if (is_bzimage(file)) {
    const auto image = parse_bzimage(file);
    if (!image) return {};
    extent = {image->preferred_address,
              entry == Entry::bzimage ? image->protected_mode.size() : image->unpacked_size};
  }
  if (extent.address >= ram_size) return {};
  extent.size = std::min(extent.size, ram_size - extent.address);
  return extent;
}

Result<LoadedKernel> load_kernel(std::span<const std::byte> file, std::span<std::byte> ram,
                                 Entry entry, UnpackedStore* store) {
  if (is_elf(file)) return load_vmlinux(file, ram, entry);
  if (is_bzimage(file)) return load_bzimage(file, ram, entry, store);
  return fail(describe_foreign(file, Wanted::x86_64));
}

}  // namespace outboard::boot
