#include "boot/decompress.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <limits>
#include <new>
#include <string>

#include <bzlib.h>
#include <lzma.h>
#include <sys/mman.h>
#include <zlib.h>
#include <zstd.h>

#include "boot/bytes.h"
#include "boot/framing.h"

namespace outboard::boot {
namespace {

using namespace std::string_view_literals;

constexpr std::uint64_t kLzmaMemoryLimit = std::uint64_t{512}
                                           << 20;  // dictionaries to 128 MiB and more

struct Magic {
  std::string_view bytes;
  Compression compression;
};

constexpr std::array kMagics{
    Magic{"\x1f\x8b"sv, Compression::gzip},           Magic{"BZh"sv, Compression::bzip2},
    Magic{"\x5d\0\0"sv, Compression::lzma},           Magic{"\xfd\x37zXZ\0"sv, Compression::xz},
    Magic{"\x89LZO\0\r\n\x1a\n"sv, Compression::lzo}, Magic{"\x02\x21\x4c\x18"sv, Compression::lz4},
    Magic{"\x28\xb5\x2f\xfd"sv, Compression::zstd},
};

unsigned char* bytes_of(std::span<const std::byte> span) {
  // The C libraries' input pointers lack const; none of them writes through it.
  return const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(span.data()));
}

// zlib and bzip2 count in 32 bits: one piece of the rest of a span.
unsigned piece(std::size_t rest) {
  return static_cast<unsigned>(std::min<std::size_t>(rest, std::numeric_limits<unsigned>::max()));
}

// Runs one gzip stream; returns the bytes written, and whether the stream ended well.
struct Inflated {
  std::size_t written = 0;
  bool ended = false;
};

Inflated inflate_gzip(std::span<const std::byte> packed, std::span<std::byte> out) {
  z_stream stream{};
  constexpr int kGzipOnly = 16;
  if (inflateInit2(&stream, MAX_WBITS + kGzipOnly) != Z_OK) return {};
  stream.next_in = bytes_of(packed);
  stream.next_out = bytes_of(out);
  std::size_t in_rest = packed.size();
  std::size_t out_rest = out.size();
  int status = Z_OK;
  do {
    const unsigned in_piece = piece(in_rest);
    const unsigned out_piece = piece(out_rest);
    stream.avail_in = in_piece;
    stream.avail_out = out_piece;
    status = inflate(&stream, Z_NO_FLUSH);
    in_rest -= in_piece - stream.avail_in;
    out_rest -= out_piece - stream.avail_out;
  } while (status == Z_OK);
  inflateEnd(&stream);
  return {out.size() - out_rest, status == Z_STREAM_END};
}

bool unpack_bzip2(std::span<const std::byte> packed, std::span<std::byte> out) {
  bz_stream stream{};
  if (BZ2_bzDecompressInit(&stream, 0, 0) != BZ_OK) return false;
  stream.next_in = reinterpret_cast<char*>(bytes_of(packed));
  stream.next_out = reinterpret_cast<char*>(out.data());
  std::size_t in_rest = packed.size();
  std::size_t out_rest = out.size();
  int status = BZ_OK;
  bool moved = true;
  while (status == BZ_OK && moved) {
    const unsigned in_piece = piece(in_rest);
    const unsigned out_piece = piece(out_rest);
    stream.avail_in = in_piece;
    stream.avail_out = out_piece;
    status = BZ2_bzDecompress(&stream);
    moved = stream.avail_in != in_piece || stream.avail_out != out_piece;
    in_rest -= in_piece - stream.avail_in;
    out_rest -= out_piece - stream.avail_out;
  }
  BZ2_bzDecompressEnd(&stream);
  return status == BZ_STREAM_END && out_rest == 0;
}

// xz (the x86 filter is part of the library) and the older lzma-alone format.
bool unpack_lzma(bool alone, std::span<const std::byte> packed, std::span<std::byte> out) {
  lzma_stream stream = LZMA_STREAM_INIT;
  const lzma_ret ready = alone ? lzma_alone_decoder(&stream, kLzmaMemoryLimit)
                               : lzma_stream_decoder(&stream, kLzmaMemoryLimit, 0);
  if (ready != LZMA_OK) return false;
  stream.next_in = bytes_of(packed);
  stream.avail_in = packed.size();
  stream.next_out = bytes_of(out);
  stream.avail_out = out.size();
  lzma_ret status = LZMA_OK;
  while (status == LZMA_OK) status = lzma_code(&stream, LZMA_RUN);
  const bool filled = stream.avail_out == 0;
  // lzma-alone leaves its end mark unread when the output is full: with room for one byte more it
  // must read the mark and not write the byte.
  if (filled && alone && status == LZMA_BUF_ERROR) {
    std::uint8_t beyond = 0;
    stream.next_out = &beyond;
    stream.avail_out = sizeof beyond;
    status = lzma_code(&stream, LZMA_RUN);
    if (stream.avail_out == 0) status = LZMA_DATA_ERROR;
  }
  lzma_end(&stream);
  return filled && status == LZMA_STREAM_END;
}

// One frame, unpacked in one call: with the whole output at hand there is no window to allocate, so
// its size does not matter. The library refuses bytes behind the frame, hence the first look.
bool unpack_zstd(std::span<const std::byte> packed, std::span<std::byte> out) {
  const std::size_t frame = ZSTD_findFrameCompressedSize(packed.data(), packed.size());
  if (ZSTD_isError(frame) != 0) return false;
  const std::size_t written = ZSTD_decompress(out.data(), out.size(), packed.data(), frame);
  return ZSTD_isError(written) == 0 && written == out.size();
}

bool unpack(Compression compression, std::span<const std::byte> packed, std::span<std::byte> out) {
  switch (compression) {
    case Compression::gzip: {
      const Inflated inflated = inflate_gzip(packed, out);
      return inflated.ended && inflated.written == out.size();
    }
    case Compression::bzip2:
      return unpack_bzip2(packed, out);
    case Compression::lzma:
      return unpack_lzma(true, packed, out);
    case Compression::xz:
      return unpack_lzma(false, packed, out);
    case Compression::lzo:
      return unpack_lzop(packed, out);
    case Compression::lz4:
      return unpack_lz4_legacy(packed, out);
    case Compression::zstd:
      return unpack_zstd(packed, out);
  }
  return false;
}

}  // namespace

Unpacked::Unpacked(std::size_t size) : size_(size) {
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  const std::size_t rounded = (size + kHugePage - 1) / kHugePage * kHugePage;
  bytes_ = static_cast<std::byte*>(std::aligned_alloc(kHugePage, rounded));
  if (bytes_ == nullptr) throw std::bad_alloc();
  ::madvise(bytes_, rounded, MADV_HUGEPAGE);  // a request: without it, it is slower
}

Unpacked::~Unpacked() {
  std::free(bytes_);
}

std::string_view compression_name(Compression compression) {
  switch (compression) {
    case Compression::gzip:
      return "gzip";
    case Compression::bzip2:
      return "bzip2";
    case Compression::lzma:
      return "lzma";
    case Compression::xz:
      return "xz";
    case Compression::lzo:
      return "lzo";
    case Compression::lz4:
      return "lz4";
    case Compression::zstd:
      return "zstd";
  }
  return "unknown";
}

std::optional<Compression> detect_compression(std::span<const std::byte> packed) {
  for (const Magic& magic : kMagics) {
    if (has_magic(packed, 0, magic.bytes)) return magic.compression;
  }
  return std::nullopt;
}

Result<Unpacked> decompress(Compression compression, std::span<const std::byte> packed,
                            std::size_t size) {
  Unpacked unpacked(size);
  if (size == 0 || !unpack(compression, packed, unpacked.span())) {
    return fail("is damaged: its " + std::string(compression_name(compression)) +
                " payload does not unpack to the size it states; copy it again");
  }
  return unpacked;
}

std::size_t peek_gzip(std::span<const std::byte> packed, std::span<std::byte> out) {
  return inflate_gzip(packed, out).written;
}

}  // namespace outboard::boot
