#include "vfio_user/server_session.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <poll.h>
#include <sys/socket.h>

namespace outboard::vfio_user {

namespace {

/// Messages handled before the owner's event loop gets its turn again.
constexpr int kBudget = 64;
/// Data, and the largest structures around it.
constexpr std::uint32_t kEnvelope = sizeof(wire::Header) + 256;

std::uint32_t largest_message(const ServerOptions& options) {
  constexpr std::uint64_t kCeiling = std::uint64_t{64} * 1024 * 1024;
  return static_cast<std::uint32_t>(std::min(options.max_data_xfer_size, kCeiling)) + kEnvelope;
}

}  // namespace

ServerSession::ServerSession(std::unique_ptr<Transport> main, DeviceModel& model,
                             const ServerOptions& options, Server::Counters& counters,
                             SessionEvents& events)
    : model_(model),
      options_(options),
      counters_(counters),
      events_(events),
      main_(std::move(main)),
      main_reader_(largest_message(options)),
      twin_reader_(largest_message(options)),
      output_(options.max_queued_output),
      windows_(options.max_dma_maps, options.require_sealed_memory),
      irqs_(model.shape().irqs) {}

ServerSession::~ServerSession() {
  for (const auto& watched : mask_fds_) events_.unwatch(watched.fd.get());
  if (twin_) events_.unwatch(twin_->fd());
  events_.unwatch(main_->fd());
}

Result<void> ServerSession::start() {
  return events_.watch(main_->fd(), false, kMainSocket);
}

void ServerSession::on_ready(std::uint64_t key) {
  if (end_) return;
  if (key == kMainSocket) {
    flush();
    read_main();
  } else if (key == kTwinSocket) {
    read_twin();
  } else if ((key & kMaskFd) != 0) {
    on_mask_fd(key);
  }
}

void ServerSession::read_main() {
  run_deferred();
  reading_ = true;
  const auto goes_on = [this] { return !end_ && deferred_.empty(); };
  // What the reader holds already makes no socket readable: the budget does not cut it off.
  for (int count = 0; (count < kBudget || main_reader_.has_buffered()) && goes_on(); ++count) {
    auto message = main_reader_.next(*main_);
    if (!message) end_with(std::move(message.error()));
    if (!message || !*message) break;
    if ((*message)->is_reply()) {
      // Late, for a DMA message that was given up; or of a client that is mistaken.
      ++counters_.stray_replies;
      continue;
    }
    const auto payload = (*message)->payload;
    handle(
        Pending{(*message)->header, {payload.begin(), payload.end()}, std::move((*message)->fds)});
    if (main_reader_.ran_dry()) break;  // whoever waits for a reply sends nothing before it
  }
  reading_ = false;
}

void ServerSession::resume() {
  if (!end_) read_main();
}

bool ServerSession::has_work() const {
  return !end_ && (!deferred_.empty() || (!reading_ && main_reader_.has_buffered()));
}

void ServerSession::read_twin() {
  for (int count = 0; count < kBudget && !end_; ++count) {
    auto message = twin_reader_.next(*twin_);
    if (!message) return end_with(std::move(message.error()));
    if (!*message) return;
    if ((*message)->is_command()) {
      return end_with(
          {Error::Kind::protocol, EPROTO, "the client sent a command on the twin socket"});
    }
    ++counters_.stray_replies;
  }
}

void ServerSession::run_deferred() {
  // What is set aside while these run comes behind them.
  for (std::size_t count = deferred_.size(); count > 0 && !end_; --count) {
    Pending command = std::move(deferred_.front());
    deferred_.pop_front();
    deferred_bytes_ -= command.payload.size();
    handle(std::move(command));
  }
}

void ServerSession::handle(Pending command) {
  const std::uint16_t number = command.header.command;
  ++counters_.commands[number < wire::kCommandLimit ? number : 0];
  const bool posted = (command.header.flags & wire::kNoReply) != 0;
  if (posted) ++counters_.posted;
  const int error = dispatch(command);
  if (error == 0 || posted) return;
  ++counters_.error_replies;
  send(Message::error_reply(command.header, error));
}

int ServerSession::dispatch(Pending& command) {
  using wire::Command;
  const auto what = static_cast<Command>(command.header.command);
  if (!negotiated_) {
    if (what == Command::version) return on_version(command);
    end_with({Error::Kind::protocol, EINVAL,
              std::string("the client's first message is ") + wire::name_of(what) +
                  ", it must be VERSION"});
    return EINVAL;
  }
  // Nobody is helped by fds that no one asked for, except by their being closed; one client in the
  // field sends one along with DMA_UNMAP.
  const bool takes_fds =
      what == Command::dma_map || what == Command::dma_unmap || what == Command::device_set_irqs;
  if (!command.fds.empty() && !takes_fds) return EINVAL;

  switch (what) {
    case Command::dma_map:
      return on_dma_map(command);
    case Command::dma_unmap:
      return on_dma_unmap(command);
    case Command::device_get_info:
      return on_device_info(command);
    case Command::device_get_region_info:
      return on_region_info(command);
    case Command::device_get_region_io_fds:
      return on_region_io_fds(command);
    case Command::device_get_irq_info:
      return on_irq_info(command);
    case Command::device_set_irqs:
      return on_set_irqs(command);
    case Command::region_read:
      return on_region_read(command);
    case Command::region_write:
      return on_region_write(command);
    case Command::region_write_multi:
      return on_write_multi(command);
    case Command::device_reset:
      return on_reset(command);
    case Command::device_feature:
      return on_feature(command);
    case Command::mig_data_read:
    case Command::mig_data_write:
      return ENOTSUP;
    case Command::version:      // once a connection
    case Command::dma_read:     // of the server
    case Command::dma_write:    // of the server
    case Command::dirty_pages:  // removed
      return EINVAL;
  }
  return EINVAL;
}

void ServerSession::end_with(Error error) {
  if (!end_) end_ = std::move(error);
}

void ServerSession::take_down() {
  end_with({Error::Kind::closed, ENOTCONN, "the connection was closed"});
  while (const auto* window = windows_.first()) unmap(window);
}

bool ServerSession::hung_up() const {
  pollfd entry{main_->fd(), POLLRDHUP, 0};
  return ::poll(&entry, 1, 0) > 0 && (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

void ServerSession::send(const Message& message, std::span<const int> fds) {
  if (auto sent = output_.send(*main_, message, fds); !sent) end_with(std::move(sent.error()));
  if (output_.empty() == wants_writable_) {
    wants_writable_ = !wants_writable_;
    events_.rewatch(main_->fd(), wants_writable_, kMainSocket);
  }
}

void ServerSession::reply_to(const Pending& command, const Message& message,
                             std::span<const int> fds) {
  if ((command.header.flags & wire::kNoReply) == 0) send(message, fds);
}

void ServerSession::flush() {
  if (output_.empty()) return;
  if (auto flushed = output_.flush(*main_); !flushed) return end_with(std::move(flushed.error()));
  if (output_.empty() && wants_writable_) {
    wants_writable_ = false;
    events_.rewatch(main_->fd(), false, kMainSocket);
  }
}

int ServerSession::refused(const Error& error) {
  say(error.message);
  return error.code;
}

void ServerSession::say(const std::string& text) const {
  if (options_.log) options_.log(text);
}

}  // namespace outboard::vfio_user
