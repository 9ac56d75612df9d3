#include "tests/fuzz/fuzzed_server.h"

#include <cstring>
#include <string>

#include "vfio_user/codec.h"

namespace outboard::fuzz {

namespace wire = vfio_user::wire;
using vfio_user::read_struct;

namespace {

constexpr std::uint32_t kMost = 4096;  // of bytes that a fuzzed length asks for

}  // namespace

void FuzzedServer::sent(std::span<const std::byte> bytes, std::size_t /*fds*/) {
  const auto header = read_struct<Header>(bytes);
  require(header && header->size == bytes.size());
  if ((header->flags & wire::kTypeMask) != wire::kTypeCommand) return;
  require(header->command != 0 && header->command < wire::kCommandLimit);
  if ((header->flags & wire::kNoReply) != 0) return;
  answer(*header, bytes.subspan(sizeof(Header)));
}

void FuzzedServer::answer(const Header& request, std::span<const std::byte> payload) {
  const std::uint8_t how = input_.byte();
  Fds fds;
  Bytes body = right(request, payload, fds);
  Header header = request;
  header.flags = wire::kTypeReply;
  header.error = 0;
  if (how >= 0xa0 && how < 0xc0) {  // one field
    if (!body.empty()) {
      const std::size_t at = input_.below(body.size());
      const std::uint64_t value = input_.number();
      std::memcpy(body.data() + at, &value, std::min(sizeof value, body.size() - at));
    }
  } else if (how >= 0xc0 && how < 0xc8) {
    header.flags |= wire::kError;
    header.error = static_cast<std::uint32_t>(input_.number());
    body.clear();
  } else if (how >= 0xc8 && how < 0xcc) {
    return;
  } else if (how >= 0xcc && how < 0xd8) {
    request_dma();
  } else if (how >= 0xd8 && how < 0xe0) {  // one that nobody waits for
    Header stray = header;
    stray.id = input_.take<std::uint16_t>();
    reply(stray, input_.bytes(input_.below(64)));
  } else if (how >= 0xe0 && how < 0xe8) {
    const std::size_t size = input_.below(kMost);
    if (size > body.size()) append(body, input_.bytes(size - body.size()));
    body.resize(size);
  } else if (how >= 0xe8 && how < 0xf0) {
    push(input_.bytes(1 + input_.below(64)));
    return;
  } else if (how >= 0xf0 && how < 0xf8) {
    const std::uint64_t value = input_.number();
    const std::size_t at = input_.below(sizeof header);
    auto bytes = std::as_writable_bytes(std::span(&header, 1)).subspan(at);
    std::memcpy(bytes.data(), &value, std::min(sizeof value, bytes.size()));
    if (input_.one_in(2)) add_fds(fds);
    Bytes message;
    append(message, header);
    append(message, body);
    push(message, std::move(fds));
    return;
  } else if (how >= 0xf8 && how < 0xfc) {
    add_fds(fds);
  } else if (how >= 0xfc) {
    hang_up();
    return;
  }
  reply(header, body, std::move(fds));
}

void FuzzedServer::reply(Header header, std::span<const std::byte> payload, Fds fds) {
  header.size = static_cast<std::uint32_t>(sizeof header + payload.size());
  Bytes message;
  append(message, header);
  append(message, payload);
  push(message, std::move(fds));
}

void FuzzedServer::add_fds(Fds& fds) {
  for (std::size_t left = input_.below(5); left > 0; --left) {
    fds.push_back(file(static_cast<std::uint32_t>(input_.below(kFileKinds))));
  }
}

void FuzzedServer::request_dma() {
  const bool write = input_.one_in(2);
  Header header{};
  header.id = input_.take<std::uint16_t>();
  header.command = static_cast<std::uint16_t>(
      input_.one_in(8) ? wire::Command{input_.byte()}
                       : (write ? wire::Command::dma_write : wire::Command::dma_read));
  header.flags = input_.one_in(8) ? wire::kNoReply : 0;
  wire::DmaAccess access{};
  access.address = input_.one_in(4) ? input_.number() : 0x1000 + input_.take<std::uint16_t>();
  access.count = input_.one_in(4) ? input_.number() : input_.below(300);
  Bytes body;
  append(body, access);
  if (write) {
    append(body, input_.bytes(std::min<std::uint64_t>(access.count, kMost)));
    if (!input_.one_in(8))
      body.resize(sizeof access + std::min<std::uint64_t>(access.count, kMost));
  }
  Fds fds;
  if (input_.one_in(16)) add_fds(fds);
  reply(header, body, std::move(fds));
}

FuzzedServer::Bytes FuzzedServer::right(const Header& request, std::span<const std::byte> payload,
                                        Fds& fds) {
  using wire::Command;
  Bytes body;
  const auto echo = [&](std::size_t size) { append(body, payload.first(size)); };
  switch (static_cast<Command>(request.command)) {
    case Command::version:
      body = version();
      break;
    case Command::device_get_info: {
      wire::DeviceInfo info{sizeof info, wire::kDevicePci | wire::kDeviceResettable,
                            wire::kPciRegions, wire::kPciIrqs};
      append(body, info);
      break;
    }
    case Command::device_get_region_info: {
      const auto asked = read_struct<wire::RegionInfo>(payload);
      require(asked.has_value());
      body = region_info(asked->index, asked->argsz, fds);
      break;
    }
    case Command::device_get_region_io_fds: {
      const auto asked = read_struct<wire::RegionIoFds>(payload);
      require(asked.has_value());
      body = region_io_fds(asked->index, asked->argsz, fds);
      break;
    }
    case Command::device_get_irq_info: {
      const auto asked = read_struct<wire::IrqInfo>(payload);
      require(asked.has_value());
      body = irq_info(asked->index);
      break;
    }
    case Command::region_read:
      body = region_read(payload);
      break;
    case Command::region_write:
      require(payload.size() >= sizeof(wire::RegionAccess));
      echo(sizeof(wire::RegionAccess));
      break;
    case Command::region_write_multi:
      echo(sizeof(wire::WriteMulti));
      break;
    case Command::dma_unmap:
      echo(sizeof(wire::DmaUnmap));
      break;
    default:
      break;
  }
  return body;
}

FuzzedServer::Bytes FuzzedServer::version() {
  static constexpr std::string_view kTexts[] = {
      R"({"capabilities":{"max_msg_fds":8}})",
      R"({"capabilities":{"max_msg_fds":1,"write_multiple":true}})",
      R"({"capabilities":{"max_data_xfer_size":64,"max_dma_maps":2,"pgsizes":4096}})",
      R"({"capabilities":{"max_msg_fds":0,"max_data_xfer_size":5,"pgsizes":2097152}})",
      R"({"capabilities":{"twin_socket":{"supported":true,"fd_index":0}}})",
  };
  Bytes body;
  append(body, wire::Version{wire::kVersionMajor, wire::kVersionMinor});
  const std::size_t which = input_.below(std::size(kTexts) + 1);
  if (which < std::size(kTexts)) {
    append(body, std::as_bytes(std::span(kTexts[which])));
  } else {
    append(body, input_.bytes(input_.below(200)));
  }
  body.push_back(std::byte{0});
  return body;
}

FuzzedServer::Bytes FuzzedServer::region_info(std::uint32_t index, std::uint32_t room, Fds& fds) {
  struct Plain {
    std::uint32_t flags;
    std::uint64_t size;
  };
  constexpr std::uint32_t kBoth = wire::kRegionReadable | wire::kRegionWritable;
  constexpr Plain kPlain[wire::kPciRegions] = {{kBoth | wire::kRegionMappable, 0x4000},
                                               {},
                                               {kBoth, 0x20},
                                               {},
                                               {kBoth, 0x1000},
                                               {},
                                               {wire::kRegionReadable, 0x800},
                                               {kBoth, 0},
                                               {}};
  wire::RegionInfo info{};
  info.index = index;
  if (index < wire::kPciRegions) {
    info.flags = kPlain[index].flags;
    info.size = index == wire::kRegionConfig ? config_.size() : kPlain[index].size;
  }
  std::vector<wire::SparseMmapArea> areas;
  if (index == 0) areas.push_back({0x1000, 0x1000});
  switch (input_.below(6)) {
    case 1:
      areas.clear();
      break;
    case 2:
      for (std::size_t left = input_.below(8); left > 0; --left) {
        areas.push_back({input_.below(0x20) * 0x1000, input_.below(0x10) * 0x1000});
      }
      break;
    case 3:
      info.size = input_.number();
      info.flags = input_.byte();
      break;
    case 4:
      info.offset = input_.one_in(2) ? input_.number() : input_.below(32) * 0x1000;
      areas.push_back({input_.number(), input_.number()});
      break;
    default:
      break;
  }
  if ((info.flags & wire::kRegionMappable) != 0) {
    fds.push_back(file(static_cast<std::uint32_t>(input_.below(kFileKinds))));
    if (input_.one_in(8)) add_fds(fds);
  }
  Bytes tail;
  if (!areas.empty()) {
    info.flags |= wire::kRegionCapabilities;
    info.cap_offset = sizeof info;
    append(tail, wire::CapabilityHeader{wire::kCapSparseMmap, wire::kCapSparseMmapVersion, 0});
    append(tail, wire::SparseMmap{static_cast<std::uint32_t>(areas.size()), 0});
    for (const auto& area : areas) append(tail, area);
  }
  info.argsz = static_cast<std::uint32_t>(sizeof info + tail.size());
  Bytes body;
  append(body, info);
  if (info.argsz <= room) append(body, tail);
  return body;
}

FuzzedServer::Bytes FuzzedServer::region_io_fds(std::uint32_t index, std::uint32_t room, Fds& fds) {
  const bool wide = input_.one_in(2);
  const std::size_t count = input_.below(6);
  Bytes tail;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t offset = input_.one_in(8) ? input_.number() : 8 * input_.below(4);
    const std::uint64_t size = input_.one_in(8) ? input_.number() : 4;
    const std::uint32_t type = input_.one_in(8) ? input_.byte() : 0;
    const std::uint32_t flags = input_.one_in(4) ? input_.byte() : 0;
    if (wide) {
      append(tail, wire::WideIoFdEntry{offset, size, static_cast<std::uint32_t>(i), type, flags, 0,
                                       0, input_.byte()});
    } else {
      append(tail, wire::IoFdEntry{offset, size, static_cast<std::uint32_t>(i), type, flags, 0,
                                   input_.byte()});
    }
    fds.push_back(input_.one_in(8) ? file(static_cast<std::uint32_t>(input_.below(kFileKinds)))
                                   : event());
  }
  wire::RegionIoFds info{};
  info.argsz = static_cast<std::uint32_t>(sizeof info + tail.size());
  info.index = index;
  info.count = static_cast<std::uint32_t>(count);
  Bytes body;
  append(body, info);
  if (info.argsz <= room) {
    append(body, tail);
  } else {
    fds.clear();
  }
  return body;
}

FuzzedServer::Bytes FuzzedServer::irq_info(std::uint32_t index) {
  constexpr std::uint32_t kCounts[wire::kPciIrqs] = {1, 4, 8, 1, 1};
  wire::IrqInfo info{sizeof info, wire::kIrqEventfd, index,
                     index < wire::kPciIrqs ? kCounts[index] : 0};
  if (input_.one_in(8)) {
    info.flags = input_.byte();
    info.count = static_cast<std::uint32_t>(input_.number());
  }
  Bytes body;
  append(body, info);
  return body;
}

FuzzedServer::Bytes FuzzedServer::region_read(std::span<const std::byte> payload) {
  const auto access = read_struct<wire::RegionAccess>(payload);
  require(access.has_value());
  Bytes body;
  append(body, *access);
  Bytes data(std::min<std::uint32_t>(access->count, 1u << 20));
  if (access->region == wire::kRegionConfig && access->offset < config_.size()) {
    const auto from = config_.subspan(access->offset);
    std::memcpy(data.data(), from.data(), std::min(data.size(), from.size()));
    if (input_.one_in(8) && !data.empty()) {
      data[input_.below(data.size())] = std::byte{input_.byte()};
    }
  } else {
    const auto from = input_.bytes(std::min<std::size_t>(data.size(), 8));
    if (!from.empty()) std::memcpy(data.data(), from.data(), from.size());
  }
  append(body, data);
  return body;
}

}  // namespace outboard::fuzz
