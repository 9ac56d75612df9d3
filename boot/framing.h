// The two containers that no library reads, because kernels use formats that only the programs `lz4
// -l` and `lzop` write: own framing around the libraries' block decompressors.
#pragma once

#include <cstddef>
#include <span>

namespace outboard::boot {

// LZ4 legacy frame (lz4_Frame_format.md, "Legacy frame"): magic 0x184c2102, then blocks of up to
// 8 MiB unpacked, each behind its 32-bit packed size; no end mark. True when `out` was filled
// exactly.
[[nodiscard]] bool unpack_lz4_legacy(std::span<const std::byte> packed, std::span<std::byte> out);

// lzop file: magic, header with optional parts, blocks behind big-endian sizes and checksums, which
// are skipped. True when `out` was filled exactly.
[[nodiscard]] bool unpack_lzop(std::span<const std::byte> packed, std::span<std::byte> out);

}  // namespace outboard::boot
