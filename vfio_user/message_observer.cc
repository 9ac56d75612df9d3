#include "vfio_user/message_observer.h"

#include "vfio_user/codec.h"

namespace outboard::vfio_user {

ObservedMessage ObservedMessage::request(wire::Command command, std::uint16_t id,
                                         std::uint32_t size, std::span<const iovec> body) {
  ObservedMessage message;
  message.sent = std::chrono::steady_clock::now();
  message.command = command;
  message.id = id;
  message.bytes_out = size;
  if (!body.empty()) {
    message.set_place({static_cast<const std::byte*>(body[0].iov_base), body[0].iov_len});
  }
  return message;
}

ObservedMessage ObservedMessage::posted_write(std::chrono::steady_clock::time_point sent,
                                              std::uint16_t id,
                                              const wire::WriteMultiEntry& entry) {
  ObservedMessage message;
  message.sent = sent;
  message.ended = sent;
  message.command = wire::Command::region_write;
  message.id = id;
  message.index = entry.region;
  message.address = entry.offset;
  message.size = entry.count;
  message.bytes_out =
      static_cast<std::uint32_t>(sizeof(wire::Header) + sizeof(wire::RegionAccess)) + entry.count;
  message.end = End::posted;
  return message;
}

ObservedMessage ObservedMessage::from_peer(const wire::Header& header,
                                           std::span<const std::byte> payload) {
  ObservedMessage message;
  message.sent = std::chrono::steady_clock::now();
  message.command = static_cast<wire::Command>(header.command);
  message.id = header.id;
  message.from_server = true;
  message.bytes_in = header.size;
  message.set_place(payload);
  return message;
}

void ObservedMessage::set_place(std::span<const std::byte> payload) {
  using wire::Command;
  switch (command) {
    case Command::region_read:
    case Command::region_write:
      if (const auto access = read_struct<wire::RegionAccess>(payload)) {
        index = access->region;
        address = access->offset;
        size = access->count;
      }
      return;
    case Command::dma_read:
    case Command::dma_write:
      if (const auto access = read_struct<wire::DmaAccess>(payload)) {
        address = access->address;
        size = access->count;
      }
      return;
    case Command::dma_map:
      if (const auto map = read_struct<wire::DmaMap>(payload)) {
        address = map->address;
        size = map->size;
      }
      return;
    case Command::dma_unmap:
      if (const auto unmap = read_struct<wire::DmaUnmap>(payload)) {
        address = unmap->address;
        size = unmap->size;
      }
      return;
    case Command::device_get_region_info:
      if (const auto info = read_struct<wire::RegionInfo>(payload)) index = info->index;
      return;
    case Command::device_get_region_io_fds:
      if (const auto fds = read_struct<wire::RegionIoFds>(payload)) index = fds->index;
      return;
    case Command::device_get_irq_info:
      if (const auto info = read_struct<wire::IrqInfo>(payload)) index = info->index;
      return;
    case Command::device_set_irqs:
      if (const auto set = read_struct<wire::SetIrqs>(payload)) {
        index = set->index;
        address = set->start;
        size = set->count;
      }
      return;
    default:
      return;
  }
}

}  // namespace outboard::vfio_user
