// What a ServerSession does for each command of its client.

#include <algorithm>
#include <cerrno>
#include <utility>

#include <sys/socket.h>
#include <unistd.h>

#include "vfio_user/server_session.h"
#include "vfio_user/socket_transport.h"

namespace outboard::vfio_user {

namespace {

/// A device model's answer as an errno for the wire.
int errno_of(int answer) {
  return answer >= 0 ? answer : EIO;
}

std::vector<SparseArea> mappable_areas(const ServerRegion& region) {
  if (region.areas.empty()) return {SparseArea{0, region.size}};
  return region.areas;
}

}  // namespace

int ServerSession::on_version(Pending& command) {
  const auto refuse = [this](std::string why) {
    end_with({Error::Kind::protocol, EINVAL, std::move(why)});
    return EINVAL;
  };
  if (!command.fds.empty()) return refuse("VERSION with file descriptors");
  if ((command.header.flags & wire::kNoReply) != 0) return refuse("VERSION that wants no reply");
  const auto request = parse_version(command.payload);
  if (!request) return refuse(request.error().message);
  if (request->version.major != wire::kVersionMajor) {
    return refuse("the client speaks version " + std::to_string(request->version.major) + "." +
                  std::to_string(request->version.minor) + ", this server 0." +
                  std::to_string(wire::kVersionMinor));
  }
  auto client = parse_capabilities(request->json);
  if (!client) return refuse(client.error().message);
  client_ = *client;

  Capabilities ours;
  ours.max_msg_fds = options_.max_msg_fds;
  ours.max_data_xfer_size = options_.max_data_xfer_size;
  ours.max_dma_maps = options_.max_dma_maps;
  ours.write_multiple = options_.write_multiple && client_.write_multiple;
  UniqueFd other_end;
  if (options_.twin_socket && client_.twin_socket && client_.max_msg_fds > 0) {
    auto pair = SocketTransport::make_pair();
    if (pair && events_.watch(pair->first->fd(), false, kTwinSocket)) {
      twin_ = std::move(pair->first);
      other_end = std::move(pair->second);
      ours.twin_socket = true;
      ours.twin_socket_fd_index = 0;
    }
  }

  // To a client that does not ask it would be an unknown key in a reply that may have little room.
  if (client_.resume_supported) ours.resume = model_.resume();
  negotiated_ = true;
  const std::string json = to_json(ours, Role::server);
  const wire::Version version{wire::kVersionMajor,
                              std::min(request->version.minor, wire::kVersionMinor)};
  const int fd = other_end.get();
  send(Message::reply(command.header)
           .add(version)
           .borrow(std::as_bytes(std::span(json.c_str(), json.size() + 1))),
       std::span(&fd, other_end ? 1 : 0));
  model_.connected();
  return 0;
}

int ServerSession::on_dma_map(Pending& command) {
  const auto request = parse_dma_map(command.payload);
  if (!request) return refused(request.error());
  if (command.fds.size() > 1) return EINVAL;
  auto mapped =
      windows_.map(*request, command.fds.empty() ? UniqueFd() : std::move(command.fds[0]));
  if (!mapped) return refused(mapped.error());
  const ServerWindow& window = (*mapped)->info;
  if (!window.host.empty() && !window.sealed && !std::exchange(said_unsealed_, true)) {
    say("the client's memory is not sealed against shrinking (F_SEAL_SHRINK): if the client "
        "truncates it, this server dies of SIGBUS");
  }
  model_.dma_mapped(window);
  reply_to(command, Message::reply(command.header));
  return 0;
}

int ServerSession::on_dma_unmap(Pending& command) {
  const auto request = parse_dma_unmap(command.payload);
  if (!request) return refused(request.error());
  const wire::DmaUnmap& fixed = request->fixed;
  if ((fixed.flags & ~(wire::kUnmapAll | wire::kUnmapDirtyBitmap)) != 0) return EINVAL;
  if (request->bitmap) return ENOTSUP;  // dirty pages are not tracked
  if ((fixed.flags & wire::kUnmapAll) != 0) {
    if (fixed.address != 0 || fixed.size != 0) return EINVAL;
    while (const auto* window = windows_.first()) unmap(window);
  } else {
    if (fixed.size == 0) return EINVAL;
    const auto* window = windows_.exact(fixed.address, fixed.size);
    if (window == nullptr) return ENOENT;
    unmap(window);
  }
  wire::DmaUnmap reply = fixed;
  reply.argsz = sizeof(reply);
  reply_to(command, Message::reply(command.header).add(reply));
  return 0;
}

void ServerSession::unmap(const WindowTable::Window* window) {
  // The model may make DMA requests of its own from inside, so it gets a copy.
  const ServerWindow info = window->info;
  model_.dma_unmapping(info);
  windows_.remove(windows_.exact(info.address, info.size));
}

int ServerSession::on_device_info(Pending& command) {
  const auto request = parse_device_info_request(command.payload);
  if (!request) return refused(request.error());
  const std::uint32_t flags =
      wire::kDevicePci | (model_.shape().resettable ? wire::kDeviceResettable : 0);
  reply_to(command, Message::reply(command.header)
                        .add(wire::DeviceInfo{sizeof(wire::DeviceInfo), flags, wire::kPciRegions,
                                              wire::kPciIrqs}));
  return 0;
}

int ServerSession::on_region_info(Pending& command) {
  const auto request = parse_region_info_request(command.payload);
  if (!request) return refused(request.error());
  const DeviceShape& shape = model_.shape();
  if (request->index >= shape.regions.size()) return EINVAL;
  const ServerRegion& region = shape.regions[request->index];

  wire::RegionInfo info{
      sizeof(info),   region.flags & ~(wire::kRegionMappable | wire::kRegionCapabilities),
      request->index, 0,
      region.size,    0};
  const bool mappable = (region.flags & wire::kRegionMappable) != 0 && region.fd >= 0 &&
                        region.size > 0 && client_.max_msg_fds > 0;
  std::vector<std::byte> capability;
  if (mappable) {
    info.flags |= wire::kRegionMappable;
    info.offset = region.file_offset;
    capability = encode_sparse_areas(mappable_areas(region));
    info.argsz += static_cast<std::uint32_t>(capability.size());
  }
  // A client with too little room learns from argsz how much it takes, and gets the capability and
  // the fd when it asks again.
  const bool whole = mappable && request->argsz >= info.argsz;
  Message reply = Message::reply(command.header);
  if (whole) {
    info.flags |= wire::kRegionCapabilities;
    info.cap_offset = sizeof(info);
    reply.add(info).borrow(capability);
  } else {
    reply.add(info);
  }
  reply_to(command, reply, std::span(&region.fd, whole ? 1 : 0));
  return 0;
}

int ServerSession::on_region_io_fds(Pending& command) {
  const auto request = parse_region_io_fds_request(command.payload);
  if (!request) return refused(request.error());
  if (request->index >= wire::kPciRegions) return EINVAL;

  std::vector<int> fds;  // each once; entries share them
  std::vector<IoFdInfo> entries;
  const std::size_t max_fds = std::min<std::size_t>(client_.max_msg_fds, wire::kMaxSocketFds);
  for (const auto& offered : model_.io_fds(request->index)) {
    auto at = std::find(fds.begin(), fds.end(), offered.fd);
    if (at == fds.end()) {
      if (fds.size() == max_fds) continue;  // that range stays a matter of messages
      at = fds.insert(fds.end(), offered.fd);
    }
    entries.push_back({offered.offset, offered.size, static_cast<std::uint32_t>(at - fds.begin()),
                       wire::IoFdType::ioeventfd, offered.flags, offered.datamatch});
  }
  const auto bytes = encode_io_fds(entries, options_.wide_io_fds);
  const wire::RegionIoFds info{static_cast<std::uint32_t>(sizeof(info) + bytes.size()), 0,
                               request->index, static_cast<std::uint32_t>(entries.size())};
  Message reply = Message::reply(command.header);
  reply.add(info);
  const bool whole = request->argsz >= info.argsz;
  if (whole) {
    reply.borrow(bytes);
  } else {
    fds.clear();
  }
  reply_to(command, reply, fds);
  return 0;
}

int ServerSession::on_irq_info(Pending& command) {
  const auto request = parse_irq_info_request(command.payload);
  if (!request) return refused(request.error());
  const DeviceShape& shape = model_.shape();
  if (request->index >= shape.irqs.size()) return EINVAL;
  const ServerIrq& irq = shape.irqs[request->index];
  reply_to(command,
           Message::reply(command.header)
               .add(wire::IrqInfo{sizeof(wire::IrqInfo), irq.flags, request->index, irq.count}));
  return 0;
}

int ServerSession::on_set_irqs(Pending& command) {
  const auto request = parse_set_irqs(command.payload);
  if (!request) return refused(request.error());
  const wire::SetIrqs& fixed = request->fixed;
  if (command.fds.size() > options_.max_msg_fds) return EINVAL;

  const bool eventfds = (fixed.flags & wire::kSetIrqsDataEventfd) != 0;
  if (eventfds && (fixed.flags & wire::kSetIrqsActionTrigger) == 0) {
    if (const int error = set_mask_fds(fixed, std::move(command.fds)); error != 0) return error;
    reply_to(command, Message::reply(command.header));
    return 0;
  }
  auto changed = irqs_.set(fixed, request->data, std::move(command.fds), counters_.triggers);
  if (!changed) return refused(changed.error());
  if (changed->armed && !eventfds) drop_mask_fds(fixed.index);
  reply_to(command, Message::reply(command.header));
  if (changed->armed) model_.irqs_armed(fixed.index);
  if (changed->unmasked) model_.irq_unmasked(fixed.index, fixed.start, fixed.count);
  return 0;
}

int ServerSession::set_mask_fds(const wire::SetIrqs& request, std::vector<UniqueFd> fds) {
  if (auto checked = irqs_.check_range(request); !checked) return refused(checked.error());
  if (request.count == 0 || (!fds.empty() && fds.size() != request.count)) return EINVAL;
  for (const auto& fd : fds) {
    if (auto checked = IrqTable::check_eventfd(fd.get()); !checked) return refused(checked.error());
  }
  const std::uint64_t unmask = (request.flags & wire::kSetIrqsActionUnmask) != 0 ? 1 : 0;
  for (std::uint32_t i = 0; i < request.count; ++i) {
    const std::uint64_t key =
        kMaskFd | unmask << 48 | std::uint64_t{request.index} << 32 | (request.start + i);
    std::erase_if(mask_fds_, [&](const MaskFd& old) {
      if (old.key == key) events_.unwatch(old.fd.get());
      return old.key == key;
    });
    if (fds.empty()) continue;
    if (auto watched = events_.watch(fds[i].get(), false, key); !watched) {
      return refused(watched.error());
    }
    mask_fds_.push_back({std::move(fds[i]), key});
  }
  return 0;
}

void ServerSession::on_mask_fd(std::uint64_t key) {
  const auto found = std::find_if(mask_fds_.begin(), mask_fds_.end(),
                                  [&](const MaskFd& entry) { return entry.key == key; });
  if (found == mask_fds_.end()) return;
  std::uint64_t count = 0;
  if (::read(found->fd.get(), &count, sizeof(count)) != sizeof(count)) return;
  const auto vector = static_cast<std::uint32_t>(key);
  const auto index = static_cast<std::uint32_t>(key >> 32) & 0xffff;
  if ((key >> 48 & 1) == 0) return irqs_.mask(index, vector);
  irqs_.unmask(index, vector, counters_.triggers);
  model_.irq_unmasked(index, vector, 1);
}

void ServerSession::drop_mask_fds(std::uint32_t index) {
  std::erase_if(mask_fds_, [&](const MaskFd& entry) {
    const bool drop = (static_cast<std::uint32_t>(entry.key >> 32) & 0xffff) == index;
    if (drop) events_.unwatch(entry.fd.get());
    return drop;
  });
}

int ServerSession::check_access(const wire::RegionAccess& access, std::uint32_t flag) const {
  const DeviceShape& shape = model_.shape();
  if (access.region >= shape.regions.size()) return EINVAL;
  const ServerRegion& region = shape.regions[access.region];
  if (access.offset > region.size || access.count > region.size - access.offset) return EINVAL;
  if (access.count > options_.max_data_xfer_size) return E2BIG;
  return (region.flags & flag) != 0 ? 0 : EPERM;
}

int ServerSession::on_region_read(Pending& command) {
  const auto access = parse_region_read_request(command.payload);
  if (!access) return refused(access.error());
  if (const int error = check_access(*access, wire::kRegionReadable); error != 0) return error;
  reply_data_.assign(access->count, std::byte{0});
  if (access->count > 0) {
    const int error = errno_of(model_.region_read(access->region, access->offset, reply_data_));
    if (error != 0) return error;
  }
  reply_to(command, Message::reply(command.header).add(*access).borrow(reply_data_));
  return 0;
}

int ServerSession::on_region_write(Pending& command) {
  const auto request = parse_region_write_request(command.payload);
  if (!request) return refused(request.error());
  const wire::RegionAccess& access = request->fixed;
  if (const int error = check_access(access, wire::kRegionWritable); error != 0) return error;
  if (access.count > 0) {
    const int error = errno_of(model_.region_write(access.region, access.offset, request->data));
    if (error != 0) return error;
  }
  reply_to(command, Message::reply(command.header).add(access));
  return 0;
}

int ServerSession::on_write_multi(Pending& command) {
  if (!options_.write_multiple) return EINVAL;
  const auto entries = parse_write_multi_request(command.payload);
  if (!entries) return refused(entries.error());
  // As if each had been sent alone and posted: one that fails does not hold up the next.
  std::uint64_t written = 0;
  for (const auto& entry : *entries) {
    const wire::RegionAccess access{entry.offset, entry.region, entry.count};
    if (check_access(access, wire::kRegionWritable) != 0) continue;
    const auto data = std::as_bytes(std::span(entry.data)).first(entry.count);
    if (model_.region_write(entry.region, entry.offset, data) == 0) ++written;
  }
  reply_to(command, Message::reply(command.header).add(wire::WriteMulti{written}));
  return 0;
}

int ServerSession::on_reset(Pending& command) {
  if (!command.payload.empty()) return EINVAL;
  if (!model_.shape().resettable) return ENOTSUP;
  irqs_.reset();
  model_.reset();
  reply_to(command, Message::reply(command.header));
  return 0;
}

int ServerSession::on_feature(Pending& command) {
  const auto request = parse_device_feature(command.payload);
  if (!request) return refused(request.error());
  return ENOTTY;  // none of them, as the kernel's VFIO says it
}

}  // namespace outboard::vfio_user
