// One connection between a VMM and a device server, message by message: whoever holds it sees each
// message of the main socket, passes it on, changes it, keeps it, or says things of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "tests/protocol/peer.h"

namespace outboard::chaos {

namespace wire = vfio_user::wire;
using protocol_test::Bytes;
using protocol_test::bytes_of;
using protocol_test::Incoming;
using protocol_test::operator+;
using protocol_test::Peer;
using vfio_user::UniqueFd;
using wire::Command;

// Both sockets are its own. The twin socket, if the server grants one, goes past it. One thread.
class WireTap final {
 public:
  WireTap(UniqueFd client, UniqueFd server)
      : client_(std::move(client)), server_(std::move(server)) {}

  enum class From { client, server };
  struct Event {
    enum class Kind { message, client_left, server_left, nothing /* within the time */ };
    Kind kind = Kind::nothing;
    From from{};
    Incoming message{};
  };
  // The next message of either side; in the end, which side has left.
  Event next(std::chrono::milliseconds patience);

  // To the other side, as it came.
  bool pass(const Event& event);
  // A command of our own to the server; its reply is kept from the client. Messages that come
  // meanwhile are passed on.
  std::optional<Incoming> ask_server(Command command, const Bytes& payload);

  Peer& client() { return client_; }
  Peer& server() { return server_; }

 private:
  Peer client_;
  Peer server_;
};

// The descriptors that came with it, which stay its own.
std::vector<int> raw_fds(const Incoming& message);
bool is_reply_to(const WireTap::Event& event, Command command);
bool is_command(const WireTap::Event& event, Command command);

}  // namespace outboard::chaos
