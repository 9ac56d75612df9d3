// DEVICE_GET_REGION_IO_FDS: ranges whose stores go to an eventfd of the server.
#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include <fcntl.h>

#include "vfio_user/client_impl.h"
#include "vfio_user/client_requests.h"
#include "vfio_user/codec.h"
#include "vfio_user/pending.h"
#include "vfio_user/text.h"

namespace outboard::vfio_user {

namespace {

/// A second query has as much room as the server wants, up to this.
constexpr std::uint32_t kMaxEntries = 1024;

constexpr std::uint32_t room_for(std::uint32_t entries) {
  return static_cast<std::uint32_t>(sizeof(wire::RegionIoFds) +
                                    entries * sizeof(wire::WideIoFdEntry));
}
static_assert(kIoFdsRoom == room_for(128));

std::string io_fds_query(std::uint32_t region) {
  return "DEVICE_GET_REGION_IO_FDS for " + region_text(region);
}

/// Empty when the entry is good in itself.
std::string fault_of(const IoFdInfo& entry, std::uint64_t region_size, std::size_t fds) {
  const bool width =
      entry.size == 0 || entry.size == 1 || entry.size == 2 || entry.size == 4 || entry.size == 8;
  if (!width) return "has size " + std::to_string(entry.size) + ", not 0, 1, 2, 4 or 8";
  const std::uint64_t span = std::max<std::uint64_t>(entry.size, 1);
  if (entry.offset >= region_size || span > region_size - entry.offset) {
    return "lies outside the region's " + hex(region_size);
  }
  if (entry.fd_index >= fds) {
    return "names descriptor " + std::to_string(entry.fd_index) + " of " + std::to_string(fds);
  }
  return {};
}

/// Whether a store could belong to both: KVM takes several entries on one address only when each
/// has a value of its own.
bool collide(const IoFdInfo& a, const IoFdInfo& b) {
  const std::uint64_t a_size = std::max<std::uint64_t>(a.size, 1);
  const std::uint64_t b_size = std::max<std::uint64_t>(b.size, 1);
  const bool apart =
      a.offset > b.offset ? a.offset - b.offset >= b_size : b.offset - a.offset >= a_size;
  if (apart) return false;
  const bool both_match = (a.flags & b.flags & wire::kIoEventFdDatamatch) != 0;
  const bool same_range = a.offset == b.offset && a.size == b.size;
  return !(both_match && same_range && a.datamatch != b.datamatch);
}

bool on_a_page(const IoFdInfo& entry, const std::vector<SparseArea>& areas) {
  const std::uint64_t span = std::max<std::uint64_t>(entry.size, 1);
  return std::any_of(areas.begin(), areas.end(), [&](const SparseArea& area) {
    return entry.offset < area.offset + area.size && area.offset < entry.offset + span;
  });
}

}  // namespace

Connection::Request io_fds_request(const iovec& body, std::uint32_t room,
                                   std::chrono::milliseconds timeout) {
  return {.command = wire::Command::device_get_region_io_fds,
          .body = {&body, 1},
          .fds = {},
          .timeout = timeout,
          .keep = room};
}

Result<Reply> Client::Impl::ask_io_fds(std::uint32_t region, std::uint32_t room) {
  wire::RegionIoFds ask{room, 0, region, 0};
  const iovec body{&ask, sizeof ask};
  return connection_->call(io_fds_request(body, room, options_.timeouts.setup));
}

Result<std::vector<IoFd>> Client::Impl::region_io_fds(std::uint32_t region) {
  const Shape* const device = shape();
  if (device == nullptr || region >= device->regions.size()) {
    return explain({Error::Kind::invalid, EINVAL, "the device has no such region"},
                   io_fds_query(region));
  }
  const Shape::Region& shape = device->regions[region];
  auto ranges =
      judge_io_fds(region, shape.size, shape.areas, ask_io_fds(region, kIoFdsRoom), kIoFdsRoom);
  // A store to an eventfd would overtake a posted write; those sent so far were done before the
  // reply.
  if (ranges && !ranges->empty()) posting_.store(false);
  return ranges;
}

Client::WriteAndIoFds Client::Impl::region_write_and_io_fds(std::uint32_t region,
                                                            std::uint64_t offset,
                                                            std::span<const std::byte> from) {
  const Shape* const device = shape();
  const bool good = device != nullptr && region < device->regions.size() &&
                    device->regions[region].writable && from.size() <= sizeof(std::uint64_t) &&
                    check_access(region, offset, from.size());
  if (!good) return {region_write(region, offset, from, Write::wait), region_io_fds(region)};

  const RegionWriteMessage message(region, offset, from);
  wire::RegionIoFds ask{kIoFdsRoom, 0, region, 0};
  const iovec body{&ask, sizeof ask};
  const auto query = io_fds_request(body, kIoFdsRoom, options_.timeouts.access);
  PendingCall write_call;
  PendingCall ask_call;
  Result<Reply> written;
  Result<Reply> asked;
  const auto sent = connection_->submit(write_call, message.request(options_.timeouts.access));
  if (!sent) {
    written = tl::make_unexpected(sent.error());
    asked = tl::make_unexpected(sent.error());
  } else if (const auto both = connection_->submit(ask_call, query, false); !both) {
    written = connection_->wait(write_call);
    asked = tl::make_unexpected(both.error());
  } else if (*both) {
    // The last reply first: who reads for it is handed the other on the way.
    asked = connection_->wait(ask_call);
    written = connection_->wait(write_call);
  } else {  // single flight
    written = connection_->wait(write_call);
    asked = connection_->call(query);
  }
  const Shape::Region& shape = device->regions[region];
  WriteAndIoFds result{judge_write(region, offset, from.size(), written),
                       judge_io_fds(region, shape.size, shape.areas, std::move(asked), kIoFdsRoom)};
  if (result.io_fds && !result.io_fds->empty()) posting_.store(false);
  return result;
}

Result<std::vector<IoFd>> Client::Impl::judge_io_fds(std::uint32_t region, std::uint64_t size,
                                                     const std::vector<SparseArea>& areas,
                                                     Result<Reply> reply, std::uint32_t room) {
  const std::string what = io_fds_query(region);
  RegionIoFdsReply parsed;
  for (int tries = 0; tries < 2; ++tries) {
    // Most servers do not know the command, and say so with one errno or another.
    if (!reply && reply.error().kind == Error::Kind::server) return std::vector<IoFd>{};
    if (!reply) return explain(reply.error(), what);
    const auto fixed = read_struct<wire::RegionIoFds>(reply->payload);
    if (!fixed || fixed->index != region) {
      return broken({Error::Kind::protocol, EPROTO, "the reply is too short or for another region"},
                    what);
    }
    if (fixed->argsz > room && fixed->argsz <= room_for(kMaxEntries) && tries == 0) {
      room = fixed->argsz;
      reply = ask_io_fds(region, room);
      continue;
    }
    auto entries = parse_region_io_fds_reply(reply->payload);
    if (!entries) return explain(entries.error(), what);
    if (entries->entries.size() != entries->fixed.count) {
      return explain({Error::Kind::invalid, EINVAL,
                      "the reply counts " + std::to_string(entries->fixed.count) +
                          " entries and has " + std::to_string(entries->entries.size())},
                     what);
    }
    parsed = std::move(*entries);
    break;
  }

  std::vector<IoFd> ranges;
  std::vector<IoFdInfo> taken;
  for (const IoFdInfo& entry : parsed.entries) {
    std::string fault = fault_of(entry, size, reply->fds.size());
    if (fault.empty() && std::any_of(taken.begin(), taken.end(),
                                     [&](const auto& other) { return collide(entry, other); })) {
      fault = "overlaps another";
    }
    if (!fault.empty()) {
      return explain(
          {Error::Kind::invalid, EINVAL, "the entry at " + hex(entry.offset) + " " + fault}, what);
    }
    taken.push_back(entry);
    // A stock kernel takes ioeventfds only; a store to a mapped page would never reach one.
    if (entry.type != IoFdType::ioeventfd || on_a_page(entry, areas)) continue;
    IoFd range;
    range.offset = entry.offset;
    range.size = entry.size;
    range.pio = (entry.flags & wire::kIoEventFdPio) != 0;
    if ((entry.flags & wire::kIoEventFdDatamatch) != 0) range.datamatch = entry.datamatch;
    range.fd = UniqueFd(::fcntl(reply->fds[entry.fd_index].get(), F_DUPFD_CLOEXEC, 0));
    if (!range.fd) {
      const int code = errno;
      return explain({Error::Kind::system, code, "cannot keep a descriptor: " + errno_text(code)},
                     what);
    }
    ranges.push_back(std::move(range));
  }
  return ranges;
}

}  // namespace outboard::vfio_user
