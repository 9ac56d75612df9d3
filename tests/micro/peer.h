// A small PCI device on a vfio-user socket, with a thread of its own: what the guests with a device
// talk to. Its registers are at the start of BAR0; see guest/peer.h for the guest's side.
//
//   BAR0  32-bit memory, 4 KiB: registers (trapped)
//   BAR1  32-bit memory, 4 KiB: MSI-X table at 0, PBA at 0x800
//   BAR2  64-bit prefetchable memory, 64 KiB: plain bytes, trapped or mapped (see PeerOptions)
//   BAR4  I/O ports, 32 of them: plain bytes
//   INTA, 4 MSI-X vectors, ERR, REQ, DEVICE_RESET
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "vfio_user/server.h"
#include "vfio_user/unique_fd.h"

namespace outboard::micro {

struct PeerOptions {
  bool mapped_bar2 = false;    // BAR2 is a memfd that the client maps
  bool one_page_only = false;  // of it, only the second page: [0x1000, 0x2000)
  bool ioeventfd = false;      // stores of 4 bytes at BAR0+0x40 signal an eventfd, until a reset
  // How long the device sits in DEVICE_RESET; it is waited for by ~Peer too, which ends it.
  std::chrono::milliseconds reset_takes{0};
  std::uint64_t scratch = 0;  // what register 0x08 holds at first
  std::string socket = {};    // where to listen; else in a folder of its own
};

class Peer final : private vfio_user::DeviceModel {
 public:
  struct Window {
    std::uint64_t address = 0;
    std::uint64_t size = 0;
    bool mapped = false;   // it came with a file, and the device sees its bytes
    bool writable = true;  // the device can write to it, or make it so, whatever it was told
    bool operator==(const Window&) const = default;
  };

  explicit Peer(PeerOptions options = {});
  ~Peer() override;

  // Where it listens.
  [[nodiscard]] const std::string& socket() const { return socket_; }

  // How often the device was reset, and its client connected. Any thread.
  [[nodiscard]] std::uint32_t resets() const { return resets_.load(); }
  [[nodiscard]] std::uint32_t connections() const { return connections_.load(); }
  // INTx unmask requests of the client. Any thread.
  [[nodiscard]] std::uint32_t unmasks() const { return unmasks_.load(); }
  // BAR2's memory, when it is mapped.
  [[nodiscard]] std::span<std::byte> bar2() const { return bar2_; }
  // Cuts BAR2's file down to `size` bytes, under everybody who has mapped it; accesses to BAR2 that
  // reach the device are errors from then on.
  void shorten_bar2(std::uint64_t size);
  // Cuts it to nothing and makes it whole again, over and over, until told to stop; from a thread
  // of the caller's.
  void flap_bar2(const std::atomic<bool>& stop);
  // The windows of guest memory as the client sent them, in order. Any thread.
  [[nodiscard]] std::vector<Window> windows() const;
  // Reads and writes that have reached the device. Any thread.
  [[nodiscard]] std::uint64_t accesses() const { return accesses_.load(); }
  // Accesses in which the device hangs (register 0x40). Any thread.
  [[nodiscard]] std::uint32_t hangs() const { return hangs_.load(); }

 private:
  const vfio_user::DeviceShape& shape() const override { return shape_; }
  int region_read(std::uint32_t region, std::uint64_t offset, std::span<std::byte> data) override;
  int region_write(std::uint32_t region, std::uint64_t offset,
                   std::span<const std::byte> data) override;
  void reset() override;
  std::vector<vfio_user::ServerIoFd> io_fds(std::uint32_t region) override;
  void connected() override { ++connections_; }
  void irq_unmasked(std::uint32_t index, std::uint32_t start, std::uint32_t count) override;
  void dma_mapped(const vfio_user::ServerWindow& window) override;

  void wait_until_stopped(std::chrono::milliseconds at_most) const;
  void make_config();
  void signal_intx();
  void write_register(std::uint64_t offset, std::uint64_t value);
  std::uint64_t read_register(std::uint64_t offset);
  void run();

  const PeerOptions options_;
  std::string directory_;
  std::string socket_;
  vfio_user::DeviceShape shape_;
  vfio_user::UniqueFd memory_;  // of BAR2, when mapped
  std::span<std::byte> bar2_;
  vfio_user::UniqueFd stop_;  // an eventfd: the thread ends

  // the device's thread
  std::array<std::byte, 256> config_{};
  std::array<std::byte, 65536> plain_{};  // BAR2, when trapped
  std::array<std::byte, 32> ports_{};
  std::uint64_t scratch_ = 0;
  std::uint64_t writes_ = 0;
  vfio_user::UniqueFd bell_;  // an eventfd, when offered
  bool bell_offered_ = true;
  std::uint64_t rings_ = 0;      // what it has counted
  std::uint64_t fetched_ = 0;    // by DMA
  bool intx_ = false;            // the device holds INTA
  bool intx_signalled_ = false;  // the client was told, and has not asked again

  std::atomic<std::uint32_t> resets_{0};
  std::atomic<std::uint32_t> connections_{0};
  std::atomic<std::uint32_t> unmasks_{0};
  mutable std::atomic<std::uint32_t> hangs_{0};
  std::atomic<std::uint64_t> accesses_{0};
  std::atomic<bool> shortened_{false};
  mutable std::mutex mutex_;
  std::vector<Window> windows_;  // under mutex_
  std::unique_ptr<vfio_user::Server> server_;
  std::thread thread_;
};

}  // namespace outboard::micro
