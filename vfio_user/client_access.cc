// Region accesses: REGION_READ, REGION_WRITE, and posted writes.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "vfio_user/client_impl.h"
#include "vfio_user/client_requests.h"
#include "vfio_user/codec.h"
#include "vfio_user/text.h"

namespace outboard::vfio_user {

namespace {

/// Up to here an access is one register and is neither split nor widened.
constexpr std::size_t kRegister = 8;
constexpr std::uint64_t kMaxReadChunk = 1024 * 1024;
/// A message of this size is one buffer in a Unix socket, so it never arrives in two pieces:
/// servers in the field read a body with a single recv.
constexpr std::uint64_t kMaxWriteChunk = 32 * 1024;

std::string access_text(const char* command, std::uint32_t region, std::uint64_t offset,
                        std::size_t size) {
  return std::string(command) + " of " + std::to_string(size) + " bytes at " + region_text(region) +
         "+" + hex(offset);
}

}  // namespace

Result<void> Client::Impl::check_access(std::uint32_t region, std::uint64_t offset,
                                        std::size_t size) const {
  if (size == 0 || offset + (size - 1) < offset) {
    return fail(Error::Kind::invalid, EINVAL, "the range is empty or wraps");
  }
  if (size <= kRegister && size > server_.max_data_xfer_size) {
    return fail(Error::Kind::limit, E2BIG,
                "the server takes only " + std::to_string(server_.max_data_xfer_size) +
                    " bytes a message (max_data_xfer_size) and a register cannot be split");
  }
  const Shape* const device = shape();
  if (device == nullptr) return {};  // before attach() the server is the judge
  if (region >= device->regions.size()) {
    return fail(Error::Kind::invalid, EINVAL, "the device has no such region");
  }
  const std::uint64_t limit = device->regions[region].size;
  if (offset > limit || size > limit - offset) {
    return fail(Error::Kind::invalid, EINVAL, "the region has only " + hex(limit) + " bytes");
  }
  return {};
}

Result<std::size_t> Client::Impl::region_read(std::uint32_t region, std::uint64_t offset,
                                              std::span<std::byte> into) {
  if (auto good = check_access(region, offset, into.size()); !good) {
    return explain(good.error(), access_text("REGION_READ", region, offset, into.size()));
  }
  const Shape* const device = shape();
  if (device != nullptr && !device->regions[region].readable) {
    if (!connection_->alive()) {
      return explain(connection_->death(), access_text("REGION_READ", region, offset, into.size()));
    }
    std::fill(into.begin(), into.end(), std::byte{0xff});
    return into.size();
  }
  const auto chunk = static_cast<std::size_t>(std::min(kMaxReadChunk, server_.max_data_xfer_size));
  std::size_t done = 0;
  while (done < into.size()) {
    const auto piece = into.subspan(done, std::min(chunk, into.size() - done));
    auto got = read_chunk(region, offset + done, piece);
    if (!got) return got;
    done += *got;
    if (*got < piece.size()) break;
  }
  return done;
}

Result<std::size_t> Client::Impl::read_chunk(std::uint32_t region, std::uint64_t offset,
                                             std::span<std::byte> into) {
  const auto what = [&] { return access_text("REGION_READ", region, offset, into.size()); };
  wire::RegionAccess access{offset, region, static_cast<std::uint32_t>(into.size())};
  const iovec body{&access, sizeof access};
  auto reply = connection_->call({.command = wire::Command::region_read,
                                  .body = {&body, 1},
                                  .fds = {},
                                  .timeout = options_.timeouts.access,
                                  .keep = sizeof access + into.size(),
                                  .poll = true});
  if (!reply) return explain(reply.error(), what());
  const auto echo = read_struct<wire::RegionAccess>(reply->payload);
  if (!echo) return broken({Error::Kind::protocol, EPROTO, "the reply is too short"}, what());
  if (echo->offset != offset || echo->region != region || echo->count > into.size()) {
    return broken({Error::Kind::protocol, EPROTO,
                   "the reply is for " + std::to_string(echo->count) + " bytes at " +
                       region_text(echo->region) + "+" + hex(echo->offset)},
                  what());
  }
  const auto data = std::span(reply->payload).subspan(sizeof access);
  if (data.size() < echo->count) {
    return broken({Error::Kind::protocol, EPROTO, "the reply has fewer bytes than it counts"},
                  what());
  }
  std::copy_n(data.begin(), echo->count, into.begin());
  return echo->count;
}

Result<void> Client::Impl::region_write(std::uint32_t region, std::uint64_t offset,
                                        std::span<const std::byte> from, Write how) {
  if (auto good = check_access(region, offset, from.size()); !good) {
    return explain(good.error(), access_text("REGION_WRITE", region, offset, from.size()));
  }
  const Shape* const device = shape();
  if (device != nullptr && !device->regions[region].writable) {
    if (connection_->alive()) return {};
    return explain(connection_->death(), access_text("REGION_WRITE", region, offset, from.size()));
  }
  if (how == Write::may_post && may_post(region, from.size())) {
    wire::WriteMultiEntry entry{offset, region, static_cast<std::uint32_t>(from.size()), {}};
    std::memcpy(entry.data, from.data(), from.size());
    const auto multi =
        server_.write_multiple
            ? static_cast<std::size_t>(std::min(kMaxWriteChunk, server_.max_data_xfer_size))
            : 0;
    auto posted = connection_->post(entry, multi);
    if (!posted) {
      return explain(posted.error(),
                     access_text("posted REGION_WRITE", region, offset, from.size()));
    }
    if (*posted) return {};
    // Too much is queued: this one waits for its reply, and the guest with it.
  }
  const auto chunk = static_cast<std::size_t>(std::min(kMaxWriteChunk, server_.max_data_xfer_size));
  while (!from.empty()) {
    const auto piece = from.first(std::min(chunk, from.size()));
    if (auto done = write_chunk(region, offset, piece); !done) return done;
    from = from.subspan(piece.size());
    offset += piece.size();
  }
  return {};
}

bool Client::Impl::may_post(std::uint32_t region, std::size_t size) const {
  return posting_.load(std::memory_order_relaxed) && region != wire::kRegionConfig &&
         size <= kRegister && !connection_->single_flight();
}

Result<void> Client::Impl::write_chunk(std::uint32_t region, std::uint64_t offset,
                                       std::span<const std::byte> from) {
  const RegionWriteMessage message(region, offset, from);
  return judge_write(region, offset, from.size(),
                     connection_->call(message.request(options_.timeouts.access)));
}

Result<void> Client::Impl::judge_write(std::uint32_t region, std::uint64_t offset, std::size_t size,
                                       const Result<Reply>& reply) {
  const auto what = [&] { return access_text("REGION_WRITE", region, offset, size); };
  if (!reply) return explain(reply.error(), what());
  const auto echo = read_struct<wire::RegionAccess>(reply->payload);
  if (!echo) return broken({Error::Kind::protocol, EPROTO, "the reply is too short"}, what());
  if (echo->offset != offset || echo->region != region || echo->count > size) {
    return broken({Error::Kind::protocol, EPROTO,
                   "the reply is for " + std::to_string(echo->count) + " bytes at " +
                       region_text(echo->region) + "+" + hex(echo->offset)},
                  what());
  }
  if (echo->count < size) {
    return explain({Error::Kind::server, EIO,
                    "the server took only " + std::to_string(echo->count) + " bytes"},
                   what());
  }
  return {};
}

}  // namespace outboard::vfio_user
