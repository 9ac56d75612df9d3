#include "tests/chaos/wire_tap.h"

#include <array>

#include <poll.h>

namespace outboard::chaos {
namespace {

// No command of a client that counts its ids from 1 has it while few are in flight.
constexpr std::uint16_t kOwnId = 0xfff0;

}  // namespace

WireTap::Event WireTap::next(std::chrono::milliseconds patience) {
  std::array<pollfd, 2> fds = {{{server_.fd(), POLLIN, 0}, {client_.fd(), POLLIN, 0}}};
  if (::poll(fds.data(), fds.size(), static_cast<int>(patience.count())) <= 0) return {};
  // The server first: what it has said before it died is passed on.
  const bool server = fds[0].revents != 0;
  auto message = (server ? server_ : client_).next();
  if (!message) {
    return {server ? Event::Kind::server_left : Event::Kind::client_left, {}, {}};
  }
  return {Event::Kind::message, server ? From::server : From::client, std::move(*message)};
}

bool WireTap::pass(const Event& event) {
  Peer& to = event.from == From::client ? server_ : client_;
  return to.send(bytes_of(event.message.header) + event.message.payload, raw_fds(event.message));
}

std::optional<Incoming> WireTap::ask_server(Command command, const Bytes& payload) {
  if (!server_.request(kOwnId, command, payload)) return std::nullopt;
  while (auto message = server_.next()) {
    if (message->is_reply() && message->header.id == kOwnId) return message;
    if (!pass({Event::Kind::message, From::server, std::move(*message)})) break;
  }
  return std::nullopt;
}

std::vector<int> raw_fds(const Incoming& message) {
  std::vector<int> out;
  for (const UniqueFd& fd : message.fds) out.push_back(fd.get());
  return out;
}

bool is_reply_to(const WireTap::Event& event, Command command) {
  return event.kind == WireTap::Event::Kind::message && event.message.is_reply() &&
         event.message.command() == command;
}

bool is_command(const WireTap::Event& event, Command command) {
  return event.kind == WireTap::Event::Kind::message && !event.message.is_reply() &&
         event.message.command() == command;
}

}  // namespace outboard::chaos
