#include "boot/framing.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include <lz4.h>
#include <lzo/lzo1x.h>

#include "boot/bytes.h"

namespace outboard::boot {
namespace {

constexpr std::uint32_t kLz4LegacyMagic = 0x184c2102;
constexpr std::size_t kLz4BlockSize = std::size_t{8} << 20;

// Flags of the lzop header.
constexpr std::uint32_t kLzopAdler32Unpacked = 0x1;
constexpr std::uint32_t kLzopAdler32Packed = 0x2;
constexpr std::uint32_t kLzopExtraField = 0x40;
constexpr std::uint32_t kLzopCrc32Unpacked = 0x100;
constexpr std::uint32_t kLzopCrc32Packed = 0x200;
constexpr std::uint32_t kLzopFilter = 0x800;
constexpr std::uint16_t kLzopVersionWithLevel = 0x940;

// Reads big-endian fields one after the other; after the first that does not fit, ok() is false and
// every further one reads as 0.
class BigEndianReader {
 public:
  explicit BigEndianReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  [[nodiscard]] bool ok() const { return ok_; }
  void skip(std::size_t size) { take(size); }
  std::uint8_t u8() { return take(1) ? load<std::uint8_t>(bytes_, at_ - 1) : std::uint8_t{0}; }
  std::uint16_t u16() { return take(2) ? load_be16(bytes_, at_ - 2) : std::uint16_t{0}; }
  std::uint32_t u32() { return take(4) ? load_be32(bytes_, at_ - 4) : 0; }
  std::span<const std::byte> block(std::size_t size) {
    return take(size) ? bytes_.subspan(at_ - size, size) : std::span<const std::byte>{};
  }

 private:
  bool take(std::size_t size) {
    ok_ = ok_ && fits(at_, size, bytes_.size());
    if (ok_) at_ += size;
    return ok_;
  }

  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

// Skips the lzop header; returns its flags. The reader tells whether it was all there.
std::uint32_t read_lzop_header(BigEndianReader& reader) {
  reader.skip(9);  // magic
  const std::uint16_t version = reader.u16();
  reader.skip(2);                                        // library version
  if (version >= kLzopVersionWithLevel) reader.skip(2);  // version needed to extract
  reader.skip(1);                                        // method
  if (version >= kLzopVersionWithLevel) reader.skip(1);  // level
  const std::uint32_t flags = reader.u32();
  if ((flags & kLzopFilter) != 0) reader.skip(4);
  reader.skip(8);                                        // mode, modification time
  if (version >= kLzopVersionWithLevel) reader.skip(4);  // its upper half
  reader.skip(reader.u8());                              // file name
  reader.skip(4);                                        // header checksum
  if ((flags & kLzopExtraField) != 0) {
    reader.skip(reader.u32());
    reader.skip(4);
  }
  return flags;
}

}  // namespace

bool unpack_lz4_legacy(std::span<const std::byte> packed, std::span<std::byte> out) {
  if (packed.size() < 4 || load<std::uint32_t>(packed, 0) != kLz4LegacyMagic) return false;
  std::size_t at = 4;
  std::size_t filled = 0;
  while (filled < out.size()) {
    if (!fits(at, 4, packed.size())) return false;
    const std::uint32_t size = load<std::uint32_t>(packed, at);
    at += 4;
    if (size == kLz4LegacyMagic) continue;  // frames may follow one another
    if (size == 0 || !fits(at, size, packed.size()) ||
        size > static_cast<std::uint32_t>(LZ4_compressBound(static_cast<int>(kLz4BlockSize)))) {
      return false;
    }
    const std::size_t room = std::min(out.size() - filled, kLz4BlockSize);
    const int unpacked = LZ4_decompress_safe(reinterpret_cast<const char*>(packed.data() + at),
                                             reinterpret_cast<char*>(out.data() + filled),
                                             static_cast<int>(size), static_cast<int>(room));
    if (unpacked <= 0) return false;
    at += size;
    filled += static_cast<std::size_t>(unpacked);
  }
  return true;
}

bool unpack_lzop(std::span<const std::byte> packed, std::span<std::byte> out) {
  BigEndianReader reader(packed);
  const std::uint32_t flags = read_lzop_header(reader);
  std::size_t filled = 0;
  while (reader.ok() && filled < out.size()) {
    const std::uint32_t unpacked_size = reader.u32();
    const std::uint32_t packed_size = reader.u32();
    if (unpacked_size == 0 || unpacked_size > out.size() - filled || packed_size > unpacked_size) {
      return false;
    }
    if ((flags & kLzopAdler32Unpacked) != 0) reader.skip(4);
    if ((flags & kLzopCrc32Unpacked) != 0) reader.skip(4);
    if (packed_size < unpacked_size) {
      if ((flags & kLzopAdler32Packed) != 0) reader.skip(4);
      if ((flags & kLzopCrc32Packed) != 0) reader.skip(4);
    }
    const auto block = reader.block(packed_size);
    if (!reader.ok()) return false;
    if (packed_size == unpacked_size) {
      std::memcpy(out.data() + filled, block.data(), block.size());
    } else {
      lzo_uint written = unpacked_size;
      const int status = lzo1x_decompress_safe(
          reinterpret_cast<const unsigned char*>(block.data()), block.size(),
          reinterpret_cast<unsigned char*>(out.data() + filled), &written, nullptr);
      if (status != LZO_E_OK || written != unpacked_size) return false;
    }
    filled += unpacked_size;
  }
  return reader.ok();
}

}  // namespace outboard::boot
