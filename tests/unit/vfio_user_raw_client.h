#pragma once

// A client that speaks raw bytes, and a device to serve, for the tests of vfio_user/.

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vfio_user/server.h"
#include "vfio_user/unique_fd.h"
#include "vfio_user/wire.h"

namespace outboard::vfio_user::testing {

using Bytes = std::vector<std::byte>;

inline std::size_t open_fds() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

template <class T>
Bytes bytes_of(const T& value) {
  const auto raw = std::as_bytes(std::span(&value, 1));
  return {raw.begin(), raw.end()};
}

inline Bytes text_bytes(const std::string& text) {
  const auto raw = std::as_bytes(std::span(text));
  return {raw.begin(), raw.end()};
}

template <class... Parts>
Bytes join(const Parts&... parts) {
  Bytes all;
  (all.insert(all.end(), parts.begin(), parts.end()), ...);
  return all;
}

inline Bytes message_bytes(std::uint16_t id, std::uint16_t command, std::uint32_t flags,
                           const Bytes& payload) {
  const wire::Header header{
      id, command, static_cast<std::uint32_t>(sizeof(wire::Header) + payload.size()), flags, 0};
  return join(bytes_of(header), payload);
}

/// One sendmsg, or as many as it takes; fds with the first byte.
inline void send_bytes(int socket, const Bytes& bytes, std::span<const int> fds = {}) {
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    iovec part{const_cast<std::byte*>(bytes.data()) + sent, bytes.size() - sent};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(253 * sizeof(int))> control{};
    if (sent == 0 && !fds.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(fds.size_bytes());
      cmsghdr* head = CMSG_FIRSTHDR(&message);
      head->cmsg_level = SOL_SOCKET;
      head->cmsg_type = SCM_RIGHTS;
      head->cmsg_len = CMSG_LEN(fds.size_bytes());
      std::memcpy(CMSG_DATA(head), fds.data(), fds.size_bytes());
    }
    const ssize_t count = ::sendmsg(socket, &message, MSG_NOSIGNAL);
    if (count < 0) return;
    sent += static_cast<std::size_t>(count);
  }
}

struct RawMessage {
  wire::Header header{};
  Bytes payload;
  std::vector<UniqueFd> fds;

  [[nodiscard]] std::uint32_t error() const {
    return (header.flags & wire::kError) != 0 ? header.error : 0;
  }
  template <class T>
  [[nodiscard]] T as() const {
    T value{};
    std::memcpy(&value, payload.data(), std::min(sizeof(T), payload.size()));
    return value;
  }
  [[nodiscard]] std::string text(std::size_t from) const {
    return {reinterpret_cast<const char*>(payload.data()) + from, payload.size() - from};
  }
};

/// Waits for `size` bytes; false at the end of the stream.
inline bool receive_exactly(int socket, std::byte* into, std::size_t size,
                            std::vector<UniqueFd>* fds) {
  while (size > 0) {
    iovec part{into, size};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(253 * sizeof(int))> control{};
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t count = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (count <= 0) return false;
    for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr;
         head = CMSG_NXTHDR(&message, head)) {
      const std::size_t number = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < number; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(head) + i * sizeof(int), sizeof(int));
        UniqueFd owned(fd);
        if (fds != nullptr) fds->push_back(std::move(owned));
      }
    }
    into += count;
    size -= static_cast<std::size_t>(count);
  }
  return true;
}

/// Waits for a whole message.
inline std::optional<RawMessage> receive_message(int socket) {
  RawMessage message;
  if (!receive_exactly(socket, reinterpret_cast<std::byte*>(&message.header),
                       sizeof(message.header), &message.fds)) {
    return std::nullopt;
  }
  message.payload.resize(message.header.size - sizeof(message.header));
  if (!receive_exactly(socket, message.payload.data(), message.payload.size(), nullptr)) {
    return std::nullopt;
  }
  return message;
}

inline bool readable(int fd, int timeout_ms = 0) {
  pollfd entry{fd, POLLIN, 0};
  return ::poll(&entry, 1, timeout_ms) > 0;
}

/// A memfd of `size` bytes, sealed against shrinking if asked.
inline UniqueFd make_memfd(std::size_t size, bool seal = true) {
  UniqueFd fd(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return {};
  if (seal) ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
  return fd;
}

/// A device whose regions are plain memory, and which notes what happens to it.
class PlainDevice : public DeviceModel {
 public:
  PlainDevice() {
    bar_page_ = make_memfd(8192);
    shape_.regions[0] = {wire::kRegionReadable | wire::kRegionWritable, 0x100, 0, {}, -1};
    shape_.regions[2] = {wire::kRegionReadable | wire::kRegionWritable | wire::kRegionMappable,
                         0x4000,
                         0,
                         {{0x1000, 0x1000}},
                         bar_page_.get()};
    shape_.regions[4] = {wire::kRegionReadable, 0x10, 0, {}, -1};
    shape_.regions[wire::kRegionConfig] = {
        wire::kRegionReadable | wire::kRegionWritable, 256, 0, {}, -1};
    shape_.irqs[wire::kIrqIntx] = {wire::kIrqEventfd | wire::kIrqMaskable | wire::kIrqAutomasked,
                                   1};
    shape_.irqs[wire::kIrqMsix] = {wire::kIrqEventfd | wire::kIrqNoResize, 64};
  }

  [[nodiscard]] const DeviceShape& shape() const override { return shape_; }

  int region_read(std::uint32_t region, std::uint64_t offset, std::span<std::byte> data) override {
    if (on_read) return on_read(offset, data);
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = memory_[{region, offset + i}];
    return 0;
  }
  int region_write(std::uint32_t region, std::uint64_t offset,
                   std::span<const std::byte> data) override {
    ++writes_;
    if (on_write) return on_write(offset, data);
    if (offset == 0xf8) return EIO;  // this register refuses
    for (std::size_t i = 0; i < data.size(); ++i) memory_[{region, offset + i}] = data[i];
    return 0;
  }
  void reset() override { ++resets_; }
  std::optional<ResumeCapability> resume() override { return resume_; }
  void connected() override { ++connects_; }
  void disconnected() override { ++disconnects_; }
  void dma_mapped(const ServerWindow& window) override { mapped_.push_back(window); }
  void dma_unmapping(const ServerWindow& window) override { unmapped_.push_back(window); }
  void irqs_armed(std::uint32_t index) override { armed_.push_back(index); }
  void irq_unmasked(std::uint32_t index, std::uint32_t start, std::uint32_t count) override {
    unmasked_.push_back({index, start, count});
  }
  std::vector<ServerIoFd> io_fds(std::uint32_t region) override {
    return region == 0 ? io_fds_ : std::vector<ServerIoFd>{};
  }

  DeviceShape shape_;
  UniqueFd bar_page_;
  std::map<std::pair<std::uint32_t, std::uint64_t>, std::byte> memory_;
  std::function<int(std::uint64_t, std::span<std::byte>)> on_read;
  std::function<int(std::uint64_t, std::span<const std::byte>)> on_write;
  int writes_ = 0, resets_ = 0, connects_ = 0, disconnects_ = 0;
  std::vector<ServerWindow> mapped_, unmapped_;
  std::vector<std::uint32_t> armed_;
  std::vector<std::array<std::uint32_t, 3>> unmasked_;
  std::vector<ServerIoFd> io_fds_;
  std::optional<ResumeCapability> resume_;
};

/// A server with a raw client at the other end of a socket pair.
class Bench {
 public:
  static constexpr const char* kPlainCaps =
      R"({"capabilities":{"max_msg_fds":16,"write_multiple":true}})";

  explicit Bench(ServerOptions options = {}) {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) std::abort();
    client = UniqueFd(ends[0]);
    options.log = [this](const std::string& line) { log.push_back(line); };
    auto made = Server::attach(UniqueFd(ends[1]), device, std::move(options));
    if (!made) std::abort();
    server = std::move(*made);
  }

  /// Lets the server work until it has nothing left to do.
  void pump() {
    while (readable(server->poll_fd())) {
      if (!server->process()) return;
    }
  }

  void post(std::uint16_t command, const Bytes& payload, std::span<const int> fds = {},
            std::uint32_t flags = 0) {
    send_bytes(client.get(), message_bytes(next_id_++, command, flags, payload), fds);
  }

  /// Sends, lets the server work, and takes the reply; nothing if there is none.
  std::optional<RawMessage> ask(std::uint16_t command, const Bytes& payload,
                                std::span<const int> fds = {}, std::uint32_t flags = 0) {
    post(command, payload, fds, flags);
    pump();
    if (!readable(client.get())) return std::nullopt;
    return receive_message(client.get());
  }
  std::optional<RawMessage> ask(wire::Command command, const Bytes& payload,
                                std::span<const int> fds = {}, std::uint32_t flags = 0) {
    return ask(static_cast<std::uint16_t>(command), payload, fds, flags);
  }

  std::optional<RawMessage> negotiate(const std::string& json = kPlainCaps) {
    return ask(wire::Command::version,
               join(bytes_of(wire::Version{0, 2}), text_bytes(json), Bytes(1)));
  }

  std::uint32_t dma_map(std::uint64_t address, std::uint64_t size, int fd, std::uint64_t offset = 0,
                        std::uint32_t flags = 3) {
    const auto reply =
        ask(wire::Command::dma_map, bytes_of(wire::DmaMap{32, flags, offset, address, size}),
            std::span(&fd, fd >= 0 ? 1 : 0));
    return reply ? reply->error() : 0xffff;
  }

  std::uint32_t set_irqs(std::uint32_t flags, std::uint32_t index, std::uint32_t start,
                         std::uint32_t count, std::span<const int> fds = {},
                         const Bytes& bools = {}) {
    const wire::SetIrqs request{static_cast<std::uint32_t>(20 + bools.size()), flags, index, start,
                                count};
    const auto reply = ask(wire::Command::device_set_irqs, join(bytes_of(request), bools), fds);
    return reply ? reply->error() : 0xffff;
  }

  PlainDevice device;
  std::vector<std::string> log;
  UniqueFd client;
  std::unique_ptr<Server> server;

 private:
  std::uint16_t next_id_ = 100;
};

}  // namespace outboard::vfio_user::testing
