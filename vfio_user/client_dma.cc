// DMA windows: DMA_MAP and DMA_UNMAP.
#include <bit>
#include <cerrno>
#include <string>

#include "vfio_user/client_impl.h"
#include "vfio_user/client_requests.h"
#include "vfio_user/codec.h"
#include "vfio_user/text.h"

namespace outboard::vfio_user {

std::string window_text(std::uint64_t address, std::uint64_t size) {
  return "window " + hex(address) + "+" + hex(size);
}

Result<void> Client::Impl::check_window(const DmaWindow& window) const {
  if (!window.readable && !window.writable) {
    return fail(Error::Kind::invalid, EINVAL, "it is neither readable nor writable");
  }
  const std::uint64_t page = std::uint64_t{1} << std::countr_zero(server_.pgsizes);
  const std::uint64_t offset = window.fd >= 0 ? window.file_offset : 0;
  if (((window.address | window.size | offset) & (page - 1)) != 0) {
    return fail(Error::Kind::invalid, EINVAL,
                "address, size or file offset " + hex(offset) +
                    " is no multiple of the server's smallest page size " + hex(page) +
                    " (pgsizes)");
  }
  if (window.fd >= 0 && server_.max_msg_fds == 0) {
    return fail(Error::Kind::limit, E2BIG,
                "the server takes no file descriptors (max_msg_fds 0); it cannot map memory");
  }
  return {};
}

wire::DmaMap dma_map_payload(const DmaWindow& window) {
  const std::uint32_t flags =
      (window.readable ? wire::kDmaReadable : 0) | (window.writable ? wire::kDmaWritable : 0);
  return {sizeof(wire::DmaMap), flags, window.fd >= 0 ? window.file_offset : 0, window.address,
          window.size};
}

Result<void> Client::Impl::dma_map(const DmaWindow& window) {
  const std::string what = "DMA_MAP of " + window_text(window.address, window.size);
  if (auto fits = check_window(window); !fits) return explain(fits.error(), what);
  // Known to the DMA server first: the server may use the window before it has answered.
  if (auto added = dma_.add(window, server_.max_dma_maps); !added) {
    return explain(added.error(), what);
  }
  if (window.fd < 0 && !twin_) connection_->set_single_flight();
  wire::DmaMap map = dma_map_payload(window);
  const iovec body{&map, sizeof map};
  auto reply = connection_->call({.command = wire::Command::dma_map,
                                  .body = {&body, 1},
                                  .fds = fds_of(window),
                                  .timeout = options_.timeouts.dma,
                                  .keep = 0});
  if (reply) return {};
  if (reply.error().kind != Error::Kind::timeout) {
    dma_.remove(window.address, window.size);
    return explain(reply.error(), what);
  }
  // Nobody knows whether the server has it: take it back, or end the connection.
  const Error error = reply.error();
  static_cast<void>(dma_unmap(window.address, window.size));
  if (dma_.remove(window.address, window.size)) {
    connection_->die(
        {Error::Kind::timeout, ETIMEDOUT, what + " was not answered and could not be taken back"});
  }
  return explain(error, what);
}

Result<void> Client::Impl::dma_unmap(std::uint64_t address, std::uint64_t size) {
  const std::string what = "DMA_UNMAP of " + window_text(address, size);
  if (!dma_.has(address, size)) {
    return explain({Error::Kind::invalid, ENOENT, "there is no such window"}, what);
  }
  wire::DmaUnmap unmap{sizeof unmap, 0, address, size};
  const iovec body{&unmap, sizeof unmap};
  auto reply = connection_->call({.command = wire::Command::dma_unmap,
                                  .body = {&body, 1},
                                  .fds = {},
                                  .timeout = options_.timeouts.dma,
                                  .keep = sizeof unmap});
  if (!reply) {
    // A dead connection cannot reach the window through us any more; a live one might.
    if (!connection_->alive()) dma_.remove(address, size);
    return explain(reply.error(), what);
  }
  auto echo = parse_dma_unmap_reply(reply->payload);
  if (!echo) return broken(echo.error(), what);
  if (*echo && ((*echo)->address != address || (*echo)->size != size)) {
    return broken({Error::Kind::protocol, EPROTO,
                   "the reply names " + window_text((*echo)->address, (*echo)->size)},
                  what);
  }
  dma_.remove(address, size);
  return {};
}

}  // namespace outboard::vfio_user
