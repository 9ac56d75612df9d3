#include "vfio_user/codec.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cerrno>

#include "vfio_user/codec_checks.h"

namespace outboard::vfio_user {

using wire::Command;

// ---- Message ------------------------------------------------------------------------------------

Message Message::command(std::uint16_t id, Command command, std::uint32_t flags) {
  Message message;
  message.header_.id = id;
  message.header_.command = static_cast<std::uint16_t>(command);
  message.header_.size = sizeof(wire::Header);
  message.header_.flags = wire::kTypeCommand | flags;
  return message;
}

Message Message::reply(const wire::Header& request) {
  Message message;
  message.header_.id = request.id;
  message.header_.command = request.command;
  message.header_.size = sizeof(wire::Header);
  message.header_.flags = wire::kTypeReply;
  return message;
}

Message Message::error_reply(const wire::Header& request, int error) {
  Message message = reply(request);
  message.header_.flags |= wire::kError;
  message.header_.error = static_cast<std::uint32_t>(error);
  return message;
}

Message& Message::borrow(std::span<const std::byte> data) {
  assert(data_.empty());
  data_ = data;
  header_.size += static_cast<std::uint32_t>(data.size());
  return *this;
}

Message& Message::add_bytes(std::span<const std::byte> bytes) {
  assert(data_.empty() && bytes.size() <= kMaxFixed - fixed_size_);
  std::memcpy(fixed_.data() + fixed_size_, bytes.data(), bytes.size());
  fixed_size_ += bytes.size();
  header_.size += static_cast<std::uint32_t>(bytes.size());
  return *this;
}

std::array<iovec, 3> Message::parts() const {
  // iovec has no const; sending does not write.
  const auto part = [](const void* base, std::size_t size) {
    return iovec{const_cast<void*>(base), size};
  };
  return {part(&header_, sizeof(header_)), part(fixed_.data(), fixed_size_),
          part(data_.data(), data_.size())};
}

int error_of(const wire::Header& reply) {
  constexpr std::uint32_t kLargestErrno = 4095;  // the kernel's MAX_ERRNO
  if (reply.error == 0 || reply.error > kLargestErrno) return EIO;
  return static_cast<int>(reply.error);
}

// ---- Requests -----------------------------------------------------------------------------------

namespace {

using codec::at_least;
using codec::exactly;
using codec::malformed;
using codec::with_exact_data;

/// The structure exactly, with an argsz that has room for it.
template <wire::Struct T>
Result<T> query(Command command, std::span<const std::byte> payload) {
  auto value = exactly<T>(command, payload);
  if (value && value->argsz < sizeof(T)) {
    return malformed(command, "argsz is " + std::to_string(value->argsz) +
                                  ", it must be at least " + std::to_string(sizeof(T)));
  }
  return value;
}

}  // namespace

Result<VersionMessage> parse_version(std::span<const std::byte> payload) {
  const auto version = read_struct<wire::Version>(payload);
  if (!version) return codec::too_short(Command::version, payload.size(), sizeof(wire::Version));
  VersionMessage message{*version, {}};
  const auto text = payload.subspan(sizeof(wire::Version));
  if (text.empty()) return message;
  const auto* begin = reinterpret_cast<const char*>(text.data());
  const std::string_view json(begin, text.size());
  const auto nul = json.find('\0');
  if (nul == std::string_view::npos) return malformed(Command::version, "the JSON has no NUL");
  if (nul + 1 != json.size()) {
    return malformed(Command::version, "the JSON has a NUL before its end");
  }
  message.json = json.substr(0, nul);
  return message;
}

Result<wire::DmaMap> parse_dma_map(std::span<const std::byte> payload) {
  return query<wire::DmaMap>(Command::dma_map, payload);
}

Result<DmaUnmapRequest> parse_dma_unmap(std::span<const std::byte> payload) {
  auto fixed = at_least<wire::DmaUnmap>(Command::dma_unmap, payload);
  if (!fixed) return tl::make_unexpected(fixed.error());
  if (fixed->fixed.argsz < sizeof(wire::DmaUnmap)) {
    return malformed(Command::dma_unmap, "argsz is too small");
  }
  DmaUnmapRequest request{fixed->fixed, {}};
  std::size_t expected = 0;
  if ((fixed->fixed.flags & wire::kUnmapDirtyBitmap) != 0) {
    request.bitmap = read_struct<wire::DirtyBitmap>(fixed->data);
    if (!request.bitmap)
      return malformed(Command::dma_unmap, "the bitmap's description is missing");
    expected = sizeof(wire::DirtyBitmap);
  }
  // Some clients send room for the bitmap along; nothing else may follow.
  const std::size_t behind = fixed->data.size() - expected;
  if (behind != 0 && (!request.bitmap || behind != request.bitmap->size)) {
    return malformed(Command::dma_unmap, std::to_string(behind) + " bytes too many");
  }
  return request;
}

Result<wire::DeviceInfo> parse_device_info_request(std::span<const std::byte> payload) {
  return query<wire::DeviceInfo>(Command::device_get_info, payload);
}

Result<wire::RegionInfo> parse_region_info_request(std::span<const std::byte> payload) {
  return query<wire::RegionInfo>(Command::device_get_region_info, payload);
}

Result<wire::RegionIoFds> parse_region_io_fds_request(std::span<const std::byte> payload) {
  auto request = query<wire::RegionIoFds>(Command::device_get_region_io_fds, payload);
  if (request && (request->flags != 0 || request->count != 0)) {
    return malformed(Command::device_get_region_io_fds, "flags and count must be 0");
  }
  return request;
}

Result<wire::IrqInfo> parse_irq_info_request(std::span<const std::byte> payload) {
  return query<wire::IrqInfo>(Command::device_get_irq_info, payload);
}

Result<WithData<wire::SetIrqs>> parse_set_irqs(std::span<const std::byte> payload) {
  constexpr auto kCommand = Command::device_set_irqs;
  auto request = at_least<wire::SetIrqs>(kCommand, payload);
  if (!request) return request;
  const wire::SetIrqs& fixed = request->fixed;
  const std::uint32_t known = wire::kSetIrqsDataBits | wire::kSetIrqsActionBits;
  if ((fixed.flags & ~known) != 0 || std::popcount(fixed.flags & wire::kSetIrqsDataBits) != 1 ||
      std::popcount(fixed.flags & wire::kSetIrqsActionBits) != 1) {
    return malformed(kCommand, "the flags must name one kind of data and one action");
  }
  if (fixed.start + std::uint64_t{fixed.count} > UINT32_MAX) {
    return malformed(kCommand, "start + count is too large");
  }
  const std::uint64_t bytes = (fixed.flags & wire::kSetIrqsDataBool) != 0 ? fixed.count : 0;
  if (request->data.size() != bytes) {
    return malformed(kCommand, std::to_string(request->data.size()) +
                                   " bytes of data, the flags and the count need " +
                                   std::to_string(bytes));
  }
  if (fixed.argsz < sizeof(wire::SetIrqs) + bytes) {
    return malformed(kCommand, "argsz is too small");
  }
  return request;
}

Result<wire::RegionAccess> parse_region_read_request(std::span<const std::byte> payload) {
  return exactly<wire::RegionAccess>(Command::region_read, payload);
}

Result<WithData<wire::RegionAccess>> parse_region_write_request(
    std::span<const std::byte> payload) {
  return with_exact_data<wire::RegionAccess>(Command::region_write, payload);
}

Result<std::vector<wire::WriteMultiEntry>> parse_write_multi_request(
    std::span<const std::byte> payload) {
  constexpr auto kCommand = Command::region_write_multi;
  auto request = at_least<wire::WriteMulti>(kCommand, payload);
  if (!request) return tl::make_unexpected(request.error());
  const std::size_t count = request->data.size() / sizeof(wire::WriteMultiEntry);
  if (request->data.size() % sizeof(wire::WriteMultiEntry) != 0 || request->fixed.count != count) {
    return malformed(kCommand, "the number of writes does not fit the size of the message");
  }
  std::vector<wire::WriteMultiEntry> entries(count);
  if (count != 0) std::memcpy(entries.data(), request->data.data(), request->data.size());
  for (const auto& entry : entries) {
    if (entry.count == 0 || entry.count > sizeof(entry.data)) {
      return malformed(kCommand,
                       "a write of " + std::to_string(entry.count) + " bytes, 1 to 8 fit");
    }
  }
  return entries;
}

Result<wire::DmaAccess> parse_dma_read_request(std::span<const std::byte> payload) {
  return exactly<wire::DmaAccess>(Command::dma_read, payload);
}

Result<WithData<wire::DmaAccess>> parse_dma_write_request(std::span<const std::byte> payload) {
  return with_exact_data<wire::DmaAccess>(Command::dma_write, payload);
}

Result<WithData<wire::DeviceFeature>> parse_device_feature(std::span<const std::byte> payload) {
  auto request = at_least<wire::DeviceFeature>(Command::device_feature, payload);
  if (request && request->fixed.argsz < sizeof(wire::DeviceFeature)) {
    return malformed(Command::device_feature, "argsz is too small");
  }
  return request;
}

Result<wire::MigData> parse_mig_data_read_request(std::span<const std::byte> payload) {
  auto request = exactly<wire::MigData>(Command::mig_data_read, payload);
  if (request && request->argsz < sizeof(wire::MigData)) {
    return malformed(Command::mig_data_read, "argsz is too small");
  }
  return request;
}

Result<WithData<wire::MigData>> parse_mig_data_write_request(std::span<const std::byte> payload) {
  auto request = at_least<wire::MigData>(Command::mig_data_write, payload);
  if (request && request->data.size() != request->fixed.size) {
    return malformed(Command::mig_data_write, "the size does not fit the size of the message");
  }
  return request;
}

}  // namespace outboard::vfio_user
