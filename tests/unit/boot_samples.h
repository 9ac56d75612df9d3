// Small kernels made by hand, and the packers for their payloads. For the tests of boot/.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <bzlib.h>
#include <doctest/doctest.h>
#include <elf.h>
#include <lz4.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <zlib.h>
#include <zstd.h>

#include "boot/bytes.h"

namespace outboard::boot::samples {

using Bytes = std::vector<std::byte>;

// Compressible, with x86 call instructions in it so that a branch filter changes something.
inline Bytes code(std::size_t size) {
  Bytes bytes(size);
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < size; ++i) {
    state = state * 1664525 + 1013904223;
    bytes[i] = static_cast<std::byte>(i % 16 == 0 ? 0xe8 : i % 16 > 2 ? i / 4096 : state >> 30);
  }
  return bytes;
}

struct ElfOptions {
  std::uint64_t address = 0x100000;
  std::size_t code_size = 3000;
  std::uint64_t bss_size = 500;
  std::optional<std::uint64_t> pvh_entry = 0x100010;
  std::uint32_t note_width = 8;  // bytes of the entry in the note: 4 or 8
  std::uint16_t machine = EM_X86_64;
  std::uint16_t type = ET_EXEC;
};

// Header, two program headers (PT_NOTE with a foreign note before Xen's, PT_LOAD), notes, code.
inline Bytes elf(const ElfOptions& options = {}) {
  const auto put_note = [](Bytes& to, std::uint32_t type, std::string_view name,
                           std::span<const std::byte> value) {
    const Elf64_Nhdr header{static_cast<std::uint32_t>(name.size()),
                            static_cast<std::uint32_t>(value.size()), type};
    const auto bytes = std::as_bytes(std::span(&header, 1));
    to.insert(to.end(), bytes.begin(), bytes.end());
    for (const auto part : {std::as_bytes(std::span(name)), value}) {
      to.insert(to.end(), part.begin(), part.end());
      to.resize(align_up(to.size(), 4));
    }
  };
  Bytes notes;
  put_note(notes, 18, std::string_view("GNU\0", 4), std::as_bytes(std::span("not this one")));
  put_note(notes, 6, std::string_view("Xen\0", 4), std::as_bytes(std::span("linux")));
  if (options.pvh_entry) {
    put_note(notes, 18, std::string_view("Xen\0", 4),
             std::as_bytes(std::span(&*options.pvh_entry, 1)).first(options.note_width));
  }

  const std::size_t notes_at = sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr);
  const std::size_t code_at = notes_at + notes.size();
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, "\177ELF\2\1\1", 7);
  header.e_type = options.type;
  header.e_machine = options.machine;
  header.e_version = 1;
  header.e_phoff = sizeof header;
  header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 2;
  const std::array<Elf64_Phdr, 2> programs{
      Elf64_Phdr{PT_NOTE, PF_R, notes_at, 0, 0, notes.size(), notes.size(), 4},
      Elf64_Phdr{PT_LOAD, PF_R | PF_X, code_at, 0xffff'ffff'8000'0000, options.address,
                 options.code_size, options.code_size + options.bss_size, 4096}};
  Bytes file(code_at);
  std::memcpy(file.data(), &header, sizeof header);
  std::memcpy(file.data() + sizeof header, programs.data(), sizeof programs);
  std::memcpy(file.data() + notes_at, notes.data(), notes.size());
  const Bytes text = code(options.code_size);
  file.insert(file.end(), text.begin(), text.end());
  return file;
}

struct BzImageOptions {
  std::uint16_t protocol = 0x020f;
  std::uint16_t xloadflags = 0x3f;
  std::uint8_t loadflags = 1;
  std::uint32_t init_size = 0x40000;
  std::uint64_t pref_address = 0x200000;
  std::uint8_t relocatable = 1;
  std::uint32_t initrd_addr_max = 0x7fff'ffff;
  std::uint32_t cmdline_size = 2047;
};

inline constexpr std::size_t kSetupSize = 2 * 512;
inline constexpr std::size_t kPayloadAt =
    0x300;  // within the protected-mode code, behind its 64-bit entry

// `packed` and the size of what it unpacks to, behind a setup header and some decompressor code.
inline Bytes bzimage(const Bytes& packed, std::size_t unpacked_size,
                     const BzImageOptions& options = {}) {
  Bytes file(kSetupSize + kPayloadAt + packed.size() + 4 + 64, std::byte{0x90});
  std::fill_n(file.begin(), kSetupSize, std::byte{0});
  std::memcpy(file.data(), "MZ", 2);
  file[0x1f1] = std::byte{1};  // setup sectors
  store<std::uint16_t>(file, 0x1fe, 0xaa55);
  store<std::uint16_t>(file, 0x200, 0x6aeb);  // jump: the header ends at 0x26c
  std::memcpy(file.data() + 0x202, "HdrS", 4);
  store<std::uint16_t>(file, 0x206, options.protocol);
  store<std::uint16_t>(file, 0x20e, 0x100);
  std::memcpy(file.data() + 0x300, "6.1.0-test (someone)", 21);
  store<std::uint8_t>(file, 0x211, options.loadflags);
  store<std::uint32_t>(file, 0x22c, options.initrd_addr_max);
  store<std::uint32_t>(file, 0x230, 0x200000);
  store<std::uint8_t>(file, 0x234, options.relocatable);
  store<std::uint16_t>(file, 0x236, options.xloadflags);
  store<std::uint32_t>(file, 0x238, options.cmdline_size);
  store<std::uint32_t>(file, 0x248, kPayloadAt);
  store<std::uint32_t>(file, 0x24c, static_cast<std::uint32_t>(packed.size() + 4));
  store<std::uint64_t>(file, 0x258, options.pref_address);
  store<std::uint32_t>(file, 0x260, options.init_size);
  std::memcpy(file.data() + kSetupSize + kPayloadAt, packed.data(), packed.size());
  store<std::uint32_t>(file, kSetupSize + kPayloadAt + packed.size(),
                       static_cast<std::uint32_t>(unpacked_size));
  return file;
}

inline Bytes pack_gzip(const Bytes& in) {
  z_stream stream{};
  REQUIRE(deflateInit2(&stream, 9, Z_DEFLATED, MAX_WBITS + 16, 9, Z_DEFAULT_STRATEGY) == Z_OK);
  Bytes out(compressBound(in.size()) + 64);
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(in.data()));
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

inline Bytes pack_bzip2(const Bytes& in) {
  Bytes out(in.size() + in.size() / 50 + 1000);
  auto size = static_cast<unsigned>(out.size());
  REQUIRE(BZ2_bzBuffToBuffCompress(reinterpret_cast<char*>(out.data()), &size,
                                   const_cast<char*>(reinterpret_cast<const char*>(in.data())),
                                   static_cast<unsigned>(in.size()), 9, 0, 0) == BZ_OK);
  out.resize(size);
  return out;
}

// As the kernel's xz_wrap.sh does: x86 filter, LZMA2 with a 32 MiB dictionary, CRC32.
inline Bytes pack_xz(const Bytes& in) {
  lzma_options_lzma options;
  REQUIRE(!lzma_lzma_preset(&options, 6));
  options.dict_size = 32u << 20;
  std::array<lzma_filter, 3> filters{lzma_filter{LZMA_FILTER_X86, nullptr},
                                     lzma_filter{LZMA_FILTER_LZMA2, &options},
                                     lzma_filter{LZMA_VLI_UNKNOWN, nullptr}};
  Bytes out(lzma_stream_buffer_bound(in.size()));
  std::size_t size = 0;
  REQUIRE(lzma_stream_buffer_encode(filters.data(), LZMA_CHECK_CRC32, nullptr,
                                    reinterpret_cast<const std::uint8_t*>(in.data()), in.size(),
                                    reinterpret_cast<std::uint8_t*>(out.data()), &size,
                                    out.size()) == LZMA_OK);
  out.resize(size);
  return out;
}

inline Bytes pack_lzma(const Bytes& in) {
  lzma_options_lzma options;
  REQUIRE(!lzma_lzma_preset(&options, 6));
  lzma_stream stream = LZMA_STREAM_INIT;
  REQUIRE(lzma_alone_encoder(&stream, &options) == LZMA_OK);
  Bytes out(in.size() + 4096);
  stream.next_in = reinterpret_cast<const std::uint8_t*>(in.data());
  stream.avail_in = in.size();
  stream.next_out = reinterpret_cast<std::uint8_t*>(out.data());
  stream.avail_out = out.size();
  REQUIRE(lzma_code(&stream, LZMA_FINISH) == LZMA_STREAM_END);
  out.resize(stream.total_out);
  lzma_end(&stream);
  return out;
}

// As `zstd -22 --ultra` from a pipe: a 128 MiB window and no content size in the frame.
inline Bytes pack_zstd(const Bytes& in) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, 1);
  REQUIRE(ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, 27)) == 0);
  Bytes out(ZSTD_compressBound(in.size()));
  ZSTD_inBuffer input{in.data(), in.size(), 0};
  ZSTD_outBuffer output{out.data(), out.size(), 0};
  ZSTD_inBuffer first{in.data(), in.size() / 2, 0};
  REQUIRE(ZSTD_isError(ZSTD_compressStream2(context, &output, &first, ZSTD_e_flush)) == 0);
  input.pos = first.pos;
  REQUIRE(ZSTD_compressStream2(context, &output, &input, ZSTD_e_end) == 0);
  ZSTD_freeCCtx(context);
  out.resize(output.pos);
  return out;
}

// `lz4 -l`: legacy frame, blocks of 8 MiB.
inline Bytes pack_lz4(const Bytes& in) {
  constexpr std::size_t kBlock = std::size_t{8} << 20;
  Bytes out(4);
  store<std::uint32_t>(out, 0, 0x184c2102);
  for (std::size_t at = 0; at < in.size(); at += kBlock) {
    const auto size = static_cast<int>(std::min(kBlock, in.size() - at));
    Bytes block(static_cast<std::size_t>(LZ4_compressBound(size)) + 4);
    const int packed = LZ4_compress_default(reinterpret_cast<const char*>(in.data() + at),
                                            reinterpret_cast<char*>(block.data() + 4), size,
                                            static_cast<int>(block.size()) - 4);
    REQUIRE(packed > 0);
    store<std::uint32_t>(block, 0, static_cast<std::uint32_t>(packed));
    out.insert(out.end(), block.begin(), block.begin() + packed + 4);
  }
  return out;
}

// `lzop -9`: blocks of 256 KiB with an Adler-32 of the unpacked bytes, one of them stored as it is.
inline Bytes pack_lzo(const Bytes& in) {
  constexpr std::size_t kBlock = std::size_t{256} << 10;
  const auto put = [](Bytes& to, std::uint64_t value, int width) {
    for (int i = width - 1; i >= 0; --i) to.push_back(static_cast<std::byte>(value >> (8 * i)));
  };
  REQUIRE(lzo_init() == LZO_E_OK);
  Bytes out;
  for (const char c : std::string_view("\x89LZO\0\r\n\x1a\n", 9)) {
    out.push_back(static_cast<std::byte>(c));
  }
  put(out, 0x1030, 2);  // version
  put(out, 0x2080, 2);  // library
  put(out, 0x0940, 2);  // needed to extract
  put(out, 3, 1);       // method
  put(out, 9, 1);       // level
  put(out, 1, 4);       // flags: Adler-32 of the unpacked bytes
  put(out, 0, 8);       // mode, time
  put(out, 0, 4);       // upper half of the time
  put(out, 0, 1);       // no name
  put(out, 0, 4);       // header checksum, not looked at
  Bytes work(LZO1X_1_MEM_COMPRESS);
  for (std::size_t at = 0; at < in.size(); at += kBlock) {
    const std::size_t size = std::min(kBlock, in.size() - at);
    Bytes block(size + size / 16 + 67);
    lzo_uint packed = block.size();
    REQUIRE(lzo1x_1_compress(reinterpret_cast<const unsigned char*>(in.data() + at), size,
                             reinterpret_cast<unsigned char*>(block.data()), &packed,
                             work.data()) == LZO_E_OK);
    if (packed >= size || at + size >= in.size()) {
      packed = size;
      block.assign(in.begin() + static_cast<std::ptrdiff_t>(at),
                   in.begin() + static_cast<std::ptrdiff_t>(at + size));
    }
    put(out, size, 4);
    put(out, packed, 4);
    put(out, 0, 4);  // the checksum, not looked at
    out.insert(out.end(), block.begin(), block.begin() + static_cast<std::ptrdiff_t>(packed));
  }
  put(out, 0, 4);
  return out;
}

struct Packer {
  const char* name;
  Bytes (*pack)(const Bytes&);
};

inline constexpr std::array kPackers{Packer{"gzip", pack_gzip}, Packer{"bzip2", pack_bzip2},
                                     Packer{"xz", pack_xz},     Packer{"lzma", pack_lzma},
                                     Packer{"zstd", pack_zstd}, Packer{"lz4", pack_lz4},
                                     Packer{"lzo", pack_lzo}};

// Guest memory that is not all zero, so that a forgotten zero-fill shows.
inline Bytes dirty_ram(std::size_t size) {
  return Bytes(size, std::byte{0xaa});
}

}  // namespace outboard::boot::samples
