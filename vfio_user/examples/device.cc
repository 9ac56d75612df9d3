// A PCI device in about a hundred lines: configuration space, one BAR of sixteen 32-bit scratch
// registers, one MSI-X vector. A write to the last register raises the vector.
//
//     device SOCKET
//
// Attach any vfio-user client to SOCKET, for example `outboard probe SOCKET`. Ends on SIGINT or
// SIGTERM.

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>

#include "vfio_user/server.h"

namespace {

using namespace outboard;
namespace wire = vfio_user::wire;

constexpr std::uint32_t kRegisters = 0;      // BAR 0
constexpr std::uint32_t kMsixTable = 1;      // BAR 1: the client emulates it, but it has to exist
constexpr std::uint64_t kDoorbell = 15 * 4;  // the register that raises the vector

class ScratchDevice final : public vfio_user::DeviceModel {
 public:
  ScratchDevice() {
    constexpr auto kReadWrite = wire::kRegionReadable | wire::kRegionWritable;
    shape_.regions[kRegisters] = {.flags = kReadWrite, .size = 4096};
    shape_.regions[kMsixTable] = {.flags = kReadWrite, .size = 4096};
    shape_.regions[wire::kRegionConfig] = {.flags = kReadWrite, .size = config_.size()};
    shape_.irqs[wire::kIrqMsix] = {.flags = wire::kIrqEventfd | wire::kIrqNoResize, .count = 1};

    put(0x00, 0x0001'1b36, 4);         // device and vendor id
    put(0x06, 0x0010, 2);              // status: there is a capability list
    put(0x08, 0xff00'0001, 4);         // class: unassigned; revision 1
    put(0x34, 0x40, 1);                // the first capability
    put(0x40, 0x0000'0011, 4);         // MSI-X, one vector, the last capability
    put(0x44, kMsixTable, 4);          // its table at the start of BAR 1
    put(0x48, 0x800 | kMsixTable, 4);  // its pending bits in the middle of BAR 1
  }

  /// The server is made with this device, so it comes later.
  void attach_to(vfio_user::Server& server) { server_ = &server; }

  [[nodiscard]] const vfio_user::DeviceShape& shape() const override { return shape_; }

  int region_read(std::uint32_t region, std::uint64_t offset, std::span<std::byte> data) override {
    const auto from = bytes_of(region);
    std::memset(data.data(), 0, data.size());  // beyond the registers: zeroes
    if (offset < from.size()) {
      const auto there = from.subspan(offset);
      std::memcpy(data.data(), there.data(), std::min(there.size(), data.size()));
    }
    return 0;
  }

  int region_write(std::uint32_t region, std::uint64_t offset,
                   std::span<const std::byte> data) override {
    if (region == kMsixTable) return 0;
    if (region == wire::kRegionConfig) {
      // Only COMMAND and the MSI-X control word can be written; BARs are the client's affair.
      const bool writable = (offset == 0x04 || offset == 0x42) && data.size() == 2;
      if (writable) std::memcpy(config_.data() + offset, data.data(), data.size());
      return 0;
    }
    if (data.size() != 4 || offset % 4 != 0) return EINVAL;
    if (offset >= registers_.size()) return 0;
    std::memcpy(registers_.data() + offset, data.data(), data.size());
    if (offset == kDoorbell) server_->trigger(wire::kIrqMsix, 0);
    return 0;
  }

  void reset() override { registers_.fill(std::byte{0}); }
  void disconnected() override { reset(); }

 private:
  void put(std::size_t offset, std::uint32_t value, std::size_t size) {
    std::memcpy(config_.data() + offset, &value, size);
  }
  std::span<const std::byte> bytes_of(std::uint32_t region) const {
    if (region == kRegisters) return registers_;
    if (region == wire::kRegionConfig) return config_;
    return {};
  }

  vfio_user::DeviceShape shape_;
  std::array<std::byte, 256> config_{};
  std::array<std::byte, 64> registers_{};
  vfio_user::Server* server_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s SOCKET\n", argv[0]);
    return 2;
  }
  ScratchDevice device;
  vfio_user::ServerOptions options;
  options.log = [](const std::string& line) { std::fprintf(stderr, "device: %s\n", line.c_str()); };
  auto server = vfio_user::Server::listen(argv[1], device, options);
  if (!server) {
    std::fprintf(stderr, "device: %s\n", server.error().message.c_str());
    return 1;
  }
  device.attach_to(**server);
  std::printf("listening on %s\n", argv[1]);
  std::fflush(stdout);

  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  const vfio_user::UniqueFd ending(signalfd(-1, &signals, SFD_CLOEXEC));
  std::array<pollfd, 2> sources{pollfd{(*server)->poll_fd(), POLLIN, 0},
                                pollfd{ending.get(), POLLIN, 0}};
  while (poll(sources.data(), sources.size(), -1) >= 0 || errno == EINTR) {
    if (sources[1].revents != 0) return 0;
    if (auto done = (*server)->process(); !done) {
      std::fprintf(stderr, "device: %s\n", done.error().message.c_str());
      return 1;
    }
  }
  return 1;
}
