// VERSION: the message, and the JSON in it, of either role.
#include <string>

#include "tests/fuzz/input.h"
#include "vfio_user/capabilities.h"
#include "vfio_user/codec.h"

using namespace outboard;
using namespace outboard::vfio_user;
using fuzz::require;

namespace {

// What is accepted holds what its readers rely on, and survives being written and read again.
void check(const Capabilities& caps) {
  require(caps.max_data_xfer_size != 0 && caps.pgsizes != 0);
  for (const Role role : {Role::client, Role::server}) {
    const auto again = parse_capabilities(to_json(caps, role));
    require(again.has_value());
    require(again->max_msg_fds == caps.max_msg_fds);
    require(again->max_data_xfer_size == caps.max_data_xfer_size);
    require(again->max_dma_maps == caps.max_dma_maps);
    require(again->pgsizes == caps.pgsizes);
    require(again->write_multiple == caps.write_multiple);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto payload = std::as_bytes(std::span(data, size));
  if (const auto message = parse_version(payload)) {
    if (const auto caps = parse_capabilities(message->json)) check(*caps);
  }
  if (const auto caps = parse_capabilities(fuzz::text_of(payload))) {
    check(*caps);
  } else {
    require(caps.error().kind == Error::Kind::protocol && !caps.error().message.empty());
  }
  return 0;
}
