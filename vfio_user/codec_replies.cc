#include <algorithm>
#include <cstring>

#include "vfio_user/codec.h"
#include "vfio_user/codec_checks.h"

namespace outboard::vfio_user {

using wire::Command;

namespace {

using codec::at_least;
using codec::exactly;
using codec::malformed;
using codec::with_exact_data;

/// A structure with argsz: trailing bytes are those of a newer protocol.
template <wire::Struct T>
Result<T> answer(Command command, std::span<const std::byte> payload) {
  const auto value = read_struct<T>(payload);
  if (!value) return codec::too_short(command, payload.size(), sizeof(T));
  if (value->argsz < sizeof(T)) {
    return malformed(command, "argsz is " + std::to_string(value->argsz) +
                                  ", it must be at least " + std::to_string(sizeof(T)));
  }
  return *value;
}

Result<void> read_sparse_areas(std::span<const std::byte> bytes, RegionInfoReply& reply) {
  constexpr auto kCommand = Command::device_get_region_info;
  const auto sparse = read_struct<wire::SparseMmap>(bytes);
  if (!sparse) return malformed(kCommand, "the sparse-mmap capability is cut off");
  bytes = bytes.subspan(sizeof(*sparse));
  if (sparse->count > kMaxSparseAreas) {
    return malformed(kCommand, std::to_string(sparse->count) + " sparse areas, at most " +
                                   std::to_string(kMaxSparseAreas) + " are accepted");
  }
  if (bytes.size() / sizeof(wire::SparseMmapArea) < sparse->count) {
    return malformed(kCommand, std::to_string(sparse->count) + " sparse areas in " +
                                   std::to_string(bytes.size()) + " bytes");
  }
  reply.sparse = true;
  for (std::uint32_t i = 0; i < sparse->count; ++i) {
    const auto area =
        *read_struct<wire::SparseMmapArea>(bytes.subspan(i * sizeof(wire::SparseMmapArea)));
    reply.areas.push_back({area.offset, area.size});
  }
  return {};
}

Result<void> walk_capabilities(std::span<const std::byte> payload, RegionInfoReply& reply) {
  constexpr auto kCommand = Command::device_get_region_info;
  std::uint32_t offset = reply.fixed.cap_offset;
  std::size_t lowest = sizeof(wire::RegionInfo);
  for (std::size_t count = 0; offset != 0; ++count) {
    if (count == kMaxCapabilityChain) return malformed(kCommand, "too many capabilities");
    if (offset < lowest || offset > payload.size()) {
      return malformed(kCommand, "a capability at offset " + std::to_string(offset) +
                                     ", it must lie in " + std::to_string(lowest) + ".." +
                                     std::to_string(payload.size()));
    }
    const auto header = read_struct<wire::CapabilityHeader>(payload.subspan(offset));
    if (!header) return malformed(kCommand, "a capability is cut off");
    lowest = offset + sizeof(*header);
    if (header->id == wire::kCapSparseMmap && header->version == wire::kCapSparseMmapVersion &&
        !reply.sparse) {
      if (auto read = read_sparse_areas(payload.subspan(lowest), reply); !read) return read;
    }
    offset = header->next;
  }
  return {};
}

}  // namespace

Result<std::optional<wire::DmaUnmap>> parse_dma_unmap_reply(std::span<const std::byte> payload) {
  if (payload.empty()) return std::nullopt;
  auto reply = at_least<wire::DmaUnmap>(Command::dma_unmap, payload);
  if (!reply) return tl::make_unexpected(reply.error());
  return reply->fixed;
}

Result<wire::DeviceInfo> parse_device_info_reply(std::span<const std::byte> payload) {
  return answer<wire::DeviceInfo>(Command::device_get_info, payload);
}

Result<RegionInfoReply> parse_region_info_reply(std::span<const std::byte> payload) {
  auto fixed = answer<wire::RegionInfo>(Command::device_get_region_info, payload);
  if (!fixed) return tl::make_unexpected(fixed.error());
  RegionInfoReply reply{*fixed, false, {}};
  // Larger argsz than the reply: the capabilities did not fit and are to be asked for again; some
  // servers set the flag and the offset all the same.
  const bool included = fixed->argsz <= payload.size();
  if ((fixed->flags & wire::kRegionCapabilities) != 0 && included) {
    if (auto walked = walk_capabilities(payload, reply); !walked) {
      return tl::make_unexpected(walked.error());
    }
  }
  return reply;
}

Result<RegionIoFdsReply> parse_region_io_fds_reply(std::span<const std::byte> payload) {
  constexpr auto kCommand = Command::device_get_region_io_fds;
  auto fixed = answer<wire::RegionIoFds>(kCommand, payload);
  if (!fixed) return tl::make_unexpected(fixed.error());
  RegionIoFdsReply reply{*fixed, {}};
  if (fixed->count == 0 || fixed->argsz > payload.size()) return reply;
  const std::size_t bytes = fixed->argsz - sizeof(wire::RegionIoFds);
  const std::size_t stride = bytes / fixed->count;
  if (bytes % fixed->count != 0 ||
      (stride != sizeof(wire::IoFdEntry) && stride != sizeof(wire::WideIoFdEntry))) {
    return malformed(kCommand, std::to_string(fixed->count) + " entries in " +
                                   std::to_string(bytes) + " bytes; an entry has 40 or 48");
  }
  for (std::size_t i = 0; i < fixed->count; ++i) {
    const auto at = payload.subspan(sizeof(wire::RegionIoFds) + i * stride);
    if (stride == sizeof(wire::IoFdEntry)) {
      const auto entry = *read_struct<wire::IoFdEntry>(at);
      reply.entries.push_back({entry.offset, entry.size, entry.fd_index,
                               static_cast<wire::IoFdType>(entry.type), entry.flags,
                               entry.datamatch});
    } else {
      const auto entry = *read_struct<wire::WideIoFdEntry>(at);
      reply.entries.push_back({entry.offset, entry.size, entry.fd_index,
                               static_cast<wire::IoFdType>(entry.type), entry.flags,
                               entry.datamatch});
    }
  }
  return reply;
}

Result<wire::IrqInfo> parse_irq_info_reply(std::span<const std::byte> payload) {
  return answer<wire::IrqInfo>(Command::device_get_irq_info, payload);
}

Result<WithData<wire::RegionAccess>> parse_region_read_reply(std::span<const std::byte> payload) {
  if (payload.empty()) return WithData<wire::RegionAccess>{};
  return with_exact_data<wire::RegionAccess>(Command::region_read, payload);
}

Result<wire::RegionAccess> parse_region_write_reply(std::span<const std::byte> payload) {
  return exactly<wire::RegionAccess>(Command::region_write, payload);
}

Result<wire::WriteMulti> parse_write_multi_reply(std::span<const std::byte> payload) {
  return exactly<wire::WriteMulti>(Command::region_write_multi, payload);
}

Result<WithData<wire::DmaAccess>> parse_dma_read_reply(std::span<const std::byte> payload) {
  return with_exact_data<wire::DmaAccess>(Command::dma_read, payload);
}

Result<wire::DmaAccess> parse_dma_write_reply(std::span<const std::byte> payload) {
  return exactly<wire::DmaAccess>(Command::dma_write, payload);
}

Result<WithData<wire::MigData>> parse_mig_data_read_reply(std::span<const std::byte> payload) {
  auto reply = at_least<wire::MigData>(Command::mig_data_read, payload);
  if (!reply) return reply;
  if (reply->data.size() < reply->fixed.size) {
    return malformed(Command::mig_data_read, "fewer bytes of data than the size says");
  }
  reply->data = reply->data.first(reply->fixed.size);
  return reply;
}

namespace {

template <wire::Struct T>
void append(std::vector<std::byte>& bytes, const T& value) {
  const std::size_t at = bytes.size();
  bytes.resize(at + sizeof(T));
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

}  // namespace

std::vector<std::byte> encode_sparse_areas(std::span<const SparseArea> areas) {
  std::vector<std::byte> bytes;
  bytes.reserve(sizeof(wire::CapabilityHeader) + sizeof(wire::SparseMmap) +
                areas.size() * sizeof(wire::SparseMmapArea));
  append(bytes, wire::CapabilityHeader{wire::kCapSparseMmap, wire::kCapSparseMmapVersion, 0});
  append(bytes, wire::SparseMmap{static_cast<std::uint32_t>(areas.size()), 0});
  for (const auto& area : areas) append(bytes, wire::SparseMmapArea{area.offset, area.size});
  return bytes;
}

std::vector<std::byte> encode_io_fds(std::span<const IoFdInfo> entries, bool wide) {
  std::vector<std::byte> bytes;
  bytes.reserve(entries.size() * sizeof(wire::WideIoFdEntry));
  for (const auto& entry : entries) {
    const auto type = static_cast<std::uint32_t>(entry.type);
    if (wide) {
      append(bytes, wire::WideIoFdEntry{entry.offset, entry.size, entry.fd_index, type, entry.flags,
                                        0, 0, entry.datamatch});
    } else {
      append(bytes, wire::IoFdEntry{entry.offset, entry.size, entry.fd_index, type, entry.flags, 0,
                                    entry.datamatch});
    }
  }
  return bytes;
}

}  // namespace outboard::vfio_user
