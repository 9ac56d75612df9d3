// Where a command's data lies in guest memory: PRP lists (§4.3) and SGLs (§4.4) resolved into
// pieces. Every byte of a list is copied before it is judged, so a guest that rewrites it
// meanwhile changes nothing; every walk is bounded by the transfer's length or kMaxSglDescriptors.
#pragma once

#include <vector>

#include "tools/nvme/guest.h"
#include "tools/nvme/spec.h"

namespace outboard::nvme {

struct Piece {
  u64 address = 0;
  u32 length = 0;
  std::byte* host = nullptr;  // null: not in a mapped window, or a bit bucket
  bool bucket = false;        // bit bucket: bytes of a read that go nowhere
};

inline constexpr u32 kMaxSglDescriptors = 4096;

struct DataPointer {
  std::vector<Piece> pieces;
  bool direct = false;  // every piece has host memory

  // Resolves the pointer of `command` for `length` bytes. `towards` is what the controller will
  // do to that memory. `page_size` in bytes (CC.MPS).
  Status resolve(const Command& command, u64 length, u32 page_size, Access towards, GuestDma& dma);

  // Copy between the pieces and one buffer of the resolved length. False: not reachable.
  bool gather(std::span<std::byte> into, GuestDma& dma) const;
  bool scatter(std::span<const std::byte> from, GuestDma& dma) const;

 private:
  void add(u64 address, u32 length, Access towards, GuestDma& dma);
  Status resolve_prp(const Command& command, u64 length, u32 page_size, Access towards,
                     GuestDma& dma);
  Status resolve_sgl(const Command& command, u64 length, Access towards, GuestDma& dma);
};

}  // namespace outboard::nvme
