#include "vfio_user/client.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "vfio_user/client_impl.h"
#include "vfio_user/codec.h"
#include "vfio_user/socket_transport.h"
#include "vfio_user/text.h"

namespace outboard::vfio_user {

namespace {

/// Larger messages than this are nonsense, whatever was negotiated; smaller ones are drained.
constexpr std::uint64_t kMaxMessage = 2 * 1024 * 1024 + 64 * 1024;
constexpr std::uint64_t kMaxTransfer = 16 * 1024 * 1024;

std::uint32_t max_message(const Capabilities& offered) {
  const std::uint64_t data = std::min(offered.max_data_xfer_size, kMaxTransfer);
  return static_cast<std::uint32_t>(
      std::max(kMaxMessage, sizeof(wire::Header) + sizeof(wire::DmaAccess) + data));
}

ClientOptions normalised(ClientOptions options) {
  options.offered.twin_socket = options.offer_twin_socket;
  options.offered.twin_socket_fd_index.reset();
  options.offered.max_data_xfer_size = std::min(options.offered.max_data_xfer_size, kMaxTransfer);
  return options;
}

}  // namespace

Capabilities ClientOptions::default_offer() {
  Capabilities offered;
  offered.max_msg_fds = wire::kMaxSocketFds;
  offered.write_multiple = true;
  offered.resume_supported = true;
  return offered;
}

// ---- Impl ---------------------------------------------------------------------------------------

Client::Impl::Impl(ClientOptions options)
    : options_(normalised(std::move(options))),
      name_(options_.name.empty() ? "vfio-user device" : options_.name),
      dma_(options_.offered.max_data_xfer_size) {}

Client::Impl::~Impl() {
  close();
}

tl::unexpected<Error> Client::Impl::explain(Error error, const std::string& what) const {
  error.message = name_ + ": " + what + ": " + error.message;
  return tl::make_unexpected(std::move(error));
}

tl::unexpected<Error> Client::Impl::broken(const Error& fault, const std::string& what) {
  return explain(connection_->broken(what + ": " + fault.message), what);
}

Result<void> Client::Impl::start(std::unique_ptr<Transport> transport) {
  const std::string what = "VERSION";
  const std::uint32_t limit = max_message(options_.offered);
  auto connection = Connection::create(
      std::move(transport), dma_,
      {options_.timeouts_until_dead, limit, options_.observer, options_.reply_poll});
  if (!connection) return explain(connection.error(), what);
  connection_ = std::move(*connection);

  wire::Version ours{wire::kVersionMajor, wire::kVersionMinor};
  std::string json = to_json(options_.offered, Role::client);
  const iovec body[] = {{&ours, sizeof ours}, {json.data(), json.size() + 1}};
  auto reply = connection_->call({.command = wire::Command::version,
                                  .body = body,
                                  .fds = {},
                                  .timeout = options_.timeouts.version,
                                  .keep = sizeof ours + kMaxCapabilitiesJson + 1});
  if (!reply) return explain(reply.error(), what);
  auto version = parse_version(reply->payload);
  if (!version) return broken(version.error(), what);
  if (version->version.major != ours.major || version->version.minor > ours.minor) {
    return broken({Error::Kind::protocol, EPROTO,
                   "the server speaks version " + std::to_string(version->version.major) + "." +
                       std::to_string(version->version.minor) + ", this side 0.0 to 0." +
                       std::to_string(ours.minor)},
                  what);
  }
  auto capabilities = parse_capabilities(version->json);
  if (!capabilities) return broken(capabilities.error(), what);
  server_ = *capabilities;

  if (!server_.twin_socket || !options_.offer_twin_socket) {
    server_.twin_socket = false;
    return {};
  }
  const auto index = server_.twin_socket_fd_index;
  if (!index || *index >= reply->fds.size()) {
    return broken(
        {Error::Kind::protocol, EPROTO, "the server grants a twin socket and does not send it"},
        what);
  }
  auto socket = SocketTransport::adopt(std::move(reply->fds[*index]));
  if (!socket) {
    return broken({Error::Kind::protocol, EPROTO, "twin socket: " + socket.error().message}, what);
  }
  connection_->expect_dma_on_main(false);
  twin_ = std::make_unique<TwinServer>(std::move(*socket), dma_, limit, options_.observer,
                                       [this](Error error) { connection_->die(std::move(error)); });
  connection_->set_death_hook([this] { twin_->stop(); });
  twin_->start(options_.twin_thread_started);
  return {};
}

void Client::Impl::close() {
  const std::lock_guard lock(close_mutex_);
  if (connection_) connection_->close();
  if (twin_) {
    twin_->stop();
    twin_->join();
  }
  dma_.clear();
}

Result<void> Client::Impl::reset() {
  const Shape* const device = shape();
  if (device == nullptr || !device->resettable) return {};
  auto reply = connection_->call({.command = wire::Command::device_reset,
                                  .body = {},
                                  .fds = {},
                                  .timeout = options_.timeouts.reset,
                                  .keep = 0});
  if (!reply) return explain(reply.error(), "DEVICE_RESET");
  return {};
}

// ---- Client -------------------------------------------------------------------------------------

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

Result<std::unique_ptr<Client>> Client::connect(const std::string& path, ClientOptions options) {
  auto socket = connect_unix(path, std::chrono::steady_clock::now() + options.timeouts.connect);
  if (!socket) return tl::make_unexpected(std::move(socket.error()));
  auto transport = SocketTransport::adopt(std::move(*socket));
  if (!transport) return tl::make_unexpected(std::move(transport.error()));
  if (options.name.empty()) options.name = path;
  return adopt(std::move(*transport), std::move(options));
}

Result<std::unique_ptr<Client>> Client::adopt(std::unique_ptr<Transport> transport,
                                              ClientOptions options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  if (auto started = impl->start(std::move(transport)); !started) {
    return tl::make_unexpected(std::move(started.error()));
  }
  return std::unique_ptr<Client>(new Client(std::move(impl)));
}

const Capabilities& Client::server() const {
  return impl_->server_;
}
const std::string& Client::name() const {
  return impl_->name_;
}

Result<DeviceDescription> Client::attach(std::span<const DmaWindow> windows,
                                         std::span<const SignalFd> signals) {
  return impl_->attach(windows, signals);
}

Result<void> Client::dma_map(const DmaWindow& window) {
  return impl_->dma_map(window);
}
Result<void> Client::dma_unmap(std::uint64_t address, std::uint64_t size) {
  return impl_->dma_unmap(address, size);
}

Result<std::size_t> Client::region_read(std::uint32_t region, std::uint64_t offset,
                                        std::span<std::byte> into) {
  return impl_->region_read(region, offset, into);
}
Result<void> Client::region_write(std::uint32_t region, std::uint64_t offset,
                                  std::span<const std::byte> from, Write how) {
  return impl_->region_write(region, offset, from, how);
}
bool Client::posts() const {
  return impl_->posting_.load(std::memory_order_relaxed);
}
Result<std::vector<IoFd>> Client::region_io_fds(std::uint32_t region) {
  return impl_->region_io_fds(region);
}

Client::WriteAndIoFds Client::region_write_and_io_fds(std::uint32_t region, std::uint64_t offset,
                                                      std::span<const std::byte> from) {
  return impl_->region_write_and_io_fds(region, offset, from);
}

Result<void> Client::arm_irqs(std::uint32_t index, std::uint32_t start,
                              std::span<const int> eventfds) {
  return impl_->arm_irqs(index, start, eventfds);
}
Result<void> Client::disable_irqs(std::uint32_t index) {
  return impl_->disable_irqs(index);
}
Result<void> Client::mask_irqs(std::uint32_t index, std::uint32_t start, std::uint32_t count) {
  return impl_->act_on_irqs(index, start, count, wire::kSetIrqsActionMask);
}
Result<void> Client::unmask_irqs(std::uint32_t index, std::uint32_t start, std::uint32_t count) {
  return impl_->act_on_irqs(index, start, count, wire::kSetIrqsActionUnmask);
}
Result<void> Client::trigger_irqs(std::uint32_t index, std::uint32_t start, std::uint32_t count) {
  return impl_->act_on_irqs(index, start, count, wire::kSetIrqsActionTrigger);
}

Result<void> Client::reset() {
  return impl_->reset();
}

bool Client::alive() const {
  return impl_->connection_->alive();
}
Error Client::death() const {
  Error reason = impl_->connection_->death();
  reason.message = impl_->name_ + ": " + reason.message;
  return reason;
}
int Client::poll_fd() const {
  return impl_->connection_->poll_fd();
}
void Client::service() {
  impl_->connection_->service();
}
void Client::set_down_handler(std::function<void(const Error&)> handler) {
  if (!handler) {
    impl_->connection_->set_down_handler({});
    return;
  }
  impl_->connection_->set_down_handler(
      [name = impl_->name_, handler = std::move(handler)](Error reason) {
        reason.message = name + ": " + reason.message;
        handler(reason);
      });
}
void Client::close() {
  impl_->close();
}

Client::Counters Client::counters() const {
  Counters counters = impl_->connection_->counters();
  if (impl_->twin_) impl_->twin_->add_to(counters);
  return counters;
}

}  // namespace outboard::vfio_user
