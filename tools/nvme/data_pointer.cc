#include "tools/nvme/data_pointer.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace outboard::nvme {

void DataPointer::add(u64 address, u32 length, Access towards, GuestDma& dma) {
  const std::span<std::byte> host = dma.translate(address, length, towards);
  if (!pieces.empty()) {
    Piece& last = pieces.back();
    const bool adjacent = !last.bucket && last.address + last.length == address &&
                          u64{last.length} + length <= 0xffff'ffff;
    if (adjacent &&
        (last.host == nullptr ? host.empty() : last.host + last.length == host.data())) {
      last.length += length;
      return;
    }
  }
  pieces.push_back({address, length, host.empty() ? nullptr : host.data(), false});
  direct = direct && !host.empty();
}

Status DataPointer::resolve(const Command& command, u64 length, u32 page_size, Access towards,
                            GuestDma& dma) {
  pieces.clear();
  direct = true;
  if (length == 0) return Status::success;
  switch (command.pointer_type()) {
    case 0:
      return resolve_prp(command, length, page_size, towards, dma);
    case 1:
    case 2:
      return resolve_sgl(command, length, towards, dma);
    default:
      return Status::invalid_field;
  }
}

Status DataPointer::resolve_prp(const Command& command, u64 length, u32 page_size, Access towards,
                                GuestDma& dma) {
  const u64 page_mask = page_size - 1;
  if ((command.pointer1 & 3) != 0) return Status::prp_offset_invalid;
  const u64 first = std::min<u64>(length, page_size - (command.pointer1 & page_mask));
  add(command.pointer1, static_cast<u32>(first), towards, dma);
  u64 left = length - first;
  if (left == 0) return Status::success;

  if (left <= page_size) {
    if ((command.pointer2 & page_mask) != 0) return Status::prp_offset_invalid;
    add(command.pointer2, static_cast<u32>(left), towards, dma);
    return Status::success;
  }

  // A list. When it needs more entries than its page has left, the page's last entry names the
  // next page, which starts at offset 0: each turn of this loop maps at least one page of data
  // except perhaps the first, so it ends.
  if ((command.pointer2 & 7) != 0) return Status::prp_offset_invalid;
  u64 list = command.pointer2;
  std::array<u64, 512> entries;
  while (left != 0) {
    const u64 needed = (left + page_mask) / page_size;
    const u64 in_page = (page_size - (list & page_mask)) / sizeof(u64);
    const bool chained = needed > in_page;
    u64 to_read = chained ? in_page : needed;
    u64 next_list = 0;
    while (to_read != 0) {
      const u64 count = std::min<u64>(to_read, entries.size());
      const auto bytes = std::as_writable_bytes(std::span(entries)).first(count * sizeof(u64));
      if (!dma.read(list, bytes)) return Status::data_transfer_error;
      list += bytes.size();
      to_read -= count;
      for (u64 i = 0; i < count; ++i) {
        if ((entries[i] & page_mask) != 0) return Status::prp_offset_invalid;
        if (chained && to_read == 0 && i + 1 == count) {
          next_list = entries[i];
          break;
        }
        const u64 bytes_here = std::min<u64>(left, page_size);
        add(entries[i], static_cast<u32>(bytes_here), towards, dma);
        left -= bytes_here;
      }
    }
    list = next_list;
  }
  return Status::success;
}

Status DataPointer::resolve_sgl(const Command& command, u64 length, Access towards, GuestDma& dma) {
  SglDescriptor descriptor;
  std::memcpy(&descriptor, &command.pointer1, sizeof(descriptor));
  u64 left = length;
  u32 seen = 0;

  // A data block or bit bucket; excess length is allowed (Identify says so) and ignored.
  const auto take = [&](const SglDescriptor& d) {
    if ((d.type & 0xf) != 0) return Status::sgl_type_invalid;
    if (++seen > kMaxSglDescriptors) return Status::invalid_sgl_count;
    switch (static_cast<SglType>(d.type >> 4)) {
      case SglType::data_block: {
        const u32 bytes = static_cast<u32>(std::min<u64>(d.length, left));
        if (bytes != 0) add(d.address, bytes, towards, dma);
        left -= bytes;
        return Status::success;
      }
      case SglType::bit_bucket: {
        if (towards == Access::read) return Status::success;  // no part of a source buffer
        const u32 bytes = static_cast<u32>(std::min<u64>(d.length, left));
        if (bytes != 0) pieces.push_back({0, bytes, nullptr, true});
        direct = direct && bytes == 0;
        left -= bytes;
        return Status::success;
      }
      default:
        return Status::sgl_type_invalid;
    }
  };

  const auto is_segment = [](const SglDescriptor& d) {
    return d.type == (static_cast<u8>(SglType::segment) << 4) ||
           d.type == (static_cast<u8>(SglType::last_segment) << 4);
  };

  if (!is_segment(descriptor)) {
    if (const Status status = take(descriptor); status != Status::success) return status;
    return left == 0 ? Status::success : Status::data_sgl_length_invalid;
  }

  std::array<SglDescriptor, 64> chunk;
  while (true) {  // one segment a turn; each holds a descriptor at least, and those are counted
    const bool last_segment = (descriptor.type >> 4) == static_cast<u8>(SglType::last_segment);
    u64 address = descriptor.address;
    u32 count = descriptor.length / u32{sizeof(SglDescriptor)};
    if (count == 0 || descriptor.length % sizeof(SglDescriptor) != 0) {
      return Status::invalid_sgl_segment;
    }
    bool onward = false;
    while (count != 0 && !onward) {
      const u32 now = std::min<u32>(count, chunk.size());
      const auto bytes = std::as_writable_bytes(std::span(chunk)).first(now * sizeof(chunk[0]));
      if (!dma.read(address, bytes)) return Status::data_transfer_error;
      address += bytes.size();
      count -= now;
      for (u32 i = 0; i < now; ++i) {
        if (is_segment(chunk[i])) {
          if (last_segment) return Status::invalid_sgl_segment;
          if (count != 0 || i + 1 != now) return Status::invalid_sgl_count;
          if (++seen > kMaxSglDescriptors) return Status::invalid_sgl_count;
          descriptor = chunk[i];
          onward = true;
        } else if (const Status status = take(chunk[i]); status != Status::success) {
          return status;
        }
      }
    }
    if (!onward) break;
  }
  return left == 0 ? Status::success : Status::data_sgl_length_invalid;
}

bool DataPointer::gather(std::span<std::byte> into, GuestDma& dma) const {
  for (const Piece& piece : pieces) {
    const auto part = into.first(piece.length);
    if (piece.host != nullptr) {
      std::memcpy(part.data(), piece.host, part.size());
    } else if (!dma.read(piece.address, part)) {
      return false;
    }
    into = into.subspan(piece.length);
  }
  return true;
}

bool DataPointer::scatter(std::span<const std::byte> from, GuestDma& dma) const {
  for (const Piece& piece : pieces) {
    const auto part = from.first(piece.length);
    if (piece.host != nullptr) {
      std::memcpy(piece.host, part.data(), part.size());
    } else if (!piece.bucket && !dma.write(piece.address, part)) {
      return false;
    }
    from = from.subspan(piece.length);
  }
  return true;
}

}  // namespace outboard::nvme
