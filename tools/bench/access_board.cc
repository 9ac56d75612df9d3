#include "tools/bench/access_board.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vfio_user/server.h"
#include "vfio_user/transport.h"

namespace outboard::bench {
namespace {

using vfio_user::Error;
using vfio_user::Result;
using vfio_user::Server;
using vfio_user::UniqueFd;
using vfio_user::wire::kRegionMappable;
using vfio_user::wire::kRegionReadable;
using vfio_user::wire::kRegionWritable;

constexpr std::uint32_t kConfigRegion = 7;
constexpr std::size_t kConfigSize = 256;
constexpr std::uint64_t kRegisters = 4096;
constexpr int kGuestPatience = 60'000;  // ms

tl::unexpected<Error> fail(int code, std::string message) {
  return tl::unexpected(Error{Error::Kind::system, code, std::move(message)});
}

// A device without interrupts: registers in BAR0, and perhaps shared pages in BAR2.
class Device : public vfio_user::DeviceModel {
 public:
  explicit Device(std::uint16_t id) {
    put(0x00, kBenchVendor, 2);
    put(0x02, id, 2);
    put(0x08, 0xffU << 24, 4);
    shape_.regions[0] = {
        .flags = kRegionReadable | kRegionWritable, .size = kRegisters, .areas = {}};
    shape_.regions[kConfigRegion] = {
        .flags = kRegionReadable | kRegionWritable, .size = kConfigSize, .areas = {}};
  }

  void share(const SharedMemory& memory) {
    shape_.regions[2] = {.flags = kRegionReadable | kRegionWritable | kRegionMappable,
                         .size = memory.bytes().size(),
                         .areas = {},
                         .fd = memory.fd()};
    pages_ = memory.bytes();
  }

  [[nodiscard]] const vfio_user::DeviceShape& shape() const override { return shape_; }

  int region_read(std::uint32_t region, std::uint64_t offset, std::span<std::byte> data) override {
    if (region == 0) {
      const std::uint64_t value = read_register(offset);
      std::memset(data.data(), 0, data.size());
      std::memcpy(data.data(), &value, std::min(data.size(), sizeof(value)));
      return 0;
    }
    const auto from = region == 2 ? std::span<const std::byte>(pages_) : std::span(config_);
    if (offset + data.size() > from.size()) return EINVAL;
    std::memcpy(data.data(), from.data() + offset, data.size());
    return 0;
  }

  int region_write(std::uint32_t region, std::uint64_t offset,
                   std::span<const std::byte> data) override {
    if (region != 2) return 0;  // registers that do nothing; the client's own configuration space
    if (offset + data.size() > pages_.size()) return EINVAL;
    std::memcpy(pages_.data() + offset, data.data(), data.size());
    return 0;
  }

  void reset() override {}

 protected:
  virtual std::uint64_t read_register(std::uint64_t /*offset*/) { return 0; }

 private:
  void put(std::size_t at, std::uint32_t value, std::size_t size) {
    std::memcpy(config_.data() + at, &value, size);
  }

  vfio_user::DeviceShape shape_;
  std::array<std::byte, kConfigSize> config_{};
  std::span<std::byte> pages_;
};

class BoardDevice final : public Device {
 public:
  BoardDevice(const SharedMemory& memory, int orders, int bell)
      : Device(kBoardDevice), orders_(orders), bell_(bell) {
    share(memory);
  }

  std::vector<vfio_user::ServerIoFd> io_fds(std::uint32_t region) override {
    if (region != 0) return {};
    return {{kBellRegister, 4, bell_}};
  }

 private:
  // The guest asks for an order: it waits here, in the middle of its access, until there is one.
  std::uint64_t read_register(std::uint64_t offset) override {
    if (offset != kNextRegister) return 0;
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    const std::uint64_t asked = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
                                static_cast<std::uint64_t>(now.tv_nsec);
    std::byte order{0};
    if (::write(orders_, &asked, sizeof asked) != sizeof asked) return 0;
    if (::read(orders_, &order, 1) != 1) return 0;  // the bench is gone: the end
    return std::to_integer<std::uint64_t>(order);
  }

  const int orders_;
  const int bell_;
};

// Serves until the bench ends it. `bell` may be -1.
void serve(Server& server, int bell, Shared* shared) {
  std::array<pollfd, 2> fds = {{{server.poll_fd(), POLLIN, 0}, {bell, POLLIN, 0}}};
  const nfds_t count = bell < 0 ? 1 : 2;
  for (;;) {
    if (::poll(fds.data(), count, -1) < 0) continue;
    if (fds[1].revents != 0) {
      eventfd_t rings = 0;
      if (::eventfd_read(bell, &rings) == 0) {
        std::atomic_ref<std::uint32_t>(shared->wakes).fetch_add(1);
      }
    }
    if (fds[0].revents != 0 && !server.process()) return;
  }
}

}  // namespace

Result<std::unique_ptr<Board>> Board::start(const std::string& folder, const Placement& placement) {
  std::unique_ptr<Board> board(new Board());
  board->board_socket_ = folder + "/board.sock";
  board->target_socket_ = folder + "/target.sock";
  board->memory_ = SharedMemory(kSharedSize);
  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
    return fail(errno, std::string("socketpair: ") + std::strerror(errno));
  }
  board->orders_.reset(pair[0]);
  UniqueFd theirs(pair[1]);
  UniqueFd bell(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));

  // Listening begins here, so that nobody need wait for a socket; the process only serves it.
  const auto start_server = [&](const std::string& path, auto&& work) -> Result<pid_t> {
    auto listening = vfio_user::listen_unix(path, 1);
    if (!listening) return tl::unexpected(listening.error());
    const pid_t process = fork_process([&] {
      board->orders_.reset();
      if (bind_to(placement.server)) work(std::move(*listening));
    });
    if (process < 0) return fail(errno, std::string("fork: ") + std::strerror(errno));
    return process;
  };
  auto started = start_server(board->board_socket_, [&](UniqueFd listening) {
    BoardDevice device(board->memory_, theirs.get(), bell.get());
    auto server = Server::listen(std::move(listening), device);
    if (server) serve(**server, bell.get(), &board->shared());
  });
  if (!started) return tl::unexpected(started.error());
  board->board_ = *started;
  started = start_server(board->target_socket_, [&](UniqueFd listening) {
    Device device(kTargetDevice);
    auto server = Server::listen(std::move(listening), device);
    if (server) serve(**server, -1, nullptr);
  });
  if (!started) return tl::unexpected(started.error());
  board->target_ = *started;
  return board;
}

Board::~Board() {
  orders_.reset();
  end_process(board_);
  end_process(target_);
  ::unlink(board_socket_.c_str());
  ::unlink(target_socket_.c_str());
}

Result<std::uint64_t> Board::wait_for_guest(int guest) {
  std::array<pollfd, 2> fds = {{{orders_.get(), POLLIN, 0}, {guest, POLLIN, 0}}};
  const int ready = ::poll(fds.data(), fds.size(), kGuestPatience);
  if (ready == 0) return fail(ETIMEDOUT, "the guest does not answer");
  std::uint64_t asked = 0;
  if ((fds[0].revents & POLLIN) == 0 ||
      ::read(orders_.get(), &asked, sizeof asked) != sizeof asked) {
    return fail(ECHILD, "the machine has ended");
  }
  return asked;
}

void Board::give(bool go_on) {
  const std::byte order{static_cast<std::uint8_t>(go_on ? 1 : 0)};
  [[maybe_unused]] const ssize_t written = ::write(orders_.get(), &order, 1);
}

}  // namespace outboard::bench
