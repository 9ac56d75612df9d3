// The server's end of a socket pair, byte by byte: what a test says is what goes over the wire.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vfio_user/unique_fd.h"
#include "vfio_user/wire.h"

namespace outboard::protocol_test {

namespace wire = vfio_user::wire;
using vfio_user::UniqueFd;
using wire::Command;
using Bytes = std::vector<std::byte>;

// The bytes of a structure, and of several in a row.
template <class T>
Bytes bytes_of(const T& value) {
  const auto* const first = reinterpret_cast<const std::byte*>(&value);
  return Bytes(first, first + sizeof value);
}
Bytes operator+(Bytes left, const Bytes& right);
Bytes text_bytes(const std::string& text, bool nul = true);
template <class T>
T struct_at(std::span<const std::byte> bytes, std::size_t offset = 0) {
  T value{};
  if (bytes.size() >= offset + sizeof value) {
    __builtin_memcpy(&value, bytes.data() + offset, sizeof value);
  }
  return value;
}

// One message as it came. `whole` says that all of it was in the socket when its header was.
struct Incoming {
  wire::Header header{};
  Bytes payload;
  std::vector<UniqueFd> fds;  // with the first byte
  std::size_t stray_fds = 0;  // with any other byte
  bool whole = false;

  [[nodiscard]] Command command() const { return static_cast<Command>(header.command); }
  [[nodiscard]] bool is_reply() const { return (header.flags & wire::kTypeMask) == 1; }
  template <class T>
  [[nodiscard]] T as() const {
    return struct_at<T>(payload);
  }
};

class Peer final {
 public:
  explicit Peer(UniqueFd socket) : socket_(std::move(socket)) {}

  // The next message; nothing at the end of the stream, or when none comes in time.
  std::optional<Incoming> next(std::chrono::milliseconds patience = std::chrono::seconds(10));

  // Raw bytes, with fds on the first of them. False when the client is gone.
  bool send(std::span<const std::byte> bytes, std::span<const int> fds = {});
  // The same one byte at a time, each in a sendmsg of its own.
  bool dribble(std::span<const std::byte> bytes, std::span<const int> fds = {});

  bool reply(const wire::Header& to, const Bytes& payload = {}, std::span<const int> fds = {},
             std::uint32_t flags = 0, std::uint32_t error = 0);
  bool error(const wire::Header& to, int code, const Bytes& payload = {});
  bool request(std::uint16_t id, Command command, const Bytes& payload,
               std::span<const int> fds = {}, std::uint32_t flags = 0);

  // Whole replies and requests as bytes, to be glued or cut.
  static Bytes reply_bytes(const wire::Header& to, const Bytes& payload = {},
                           std::uint32_t flags = 0, std::uint32_t error = 0);
  static Bytes request_bytes(std::uint16_t id, Command command, const Bytes& payload,
                             std::uint32_t flags = 0);

  // From now on replies and requests are dribbled.
  void be_slow() { slow_ = true; }
  [[nodiscard]] int fd() const { return socket_.get(); }
  // As next(), send() and reply(), close() is for the thread that serves; shut_down() is for any.
  void shut_down(int how);
  void close();

 private:
  bool read_exactly(std::span<std::byte> into, std::vector<UniqueFd>& first, std::size_t* stray,
                    std::chrono::steady_clock::time_point deadline);

  std::unique_ptr<std::mutex> closing_ = std::make_unique<std::mutex>();
  UniqueFd socket_;
  bool slow_ = false;
};

}  // namespace outboard::protocol_test
