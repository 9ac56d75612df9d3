// The inside of Client, for its own source files only.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "vfio_user/client.h"
#include "vfio_user/connection.h"
#include "vfio_user/dma_server.h"
#include "vfio_user/twin_server.h"
#include "vfio_user/wire.h"

namespace outboard::vfio_user {

class Client::Impl final {
 public:
  /// What later calls need to know of the device; written once by attach(), before `attached_`.
  struct Shape {
    struct Region {
      std::uint64_t size = 0;
      bool readable = false;
      bool writable = false;
      std::vector<SparseArea> areas;
    };
    struct Irq {
      std::uint32_t count = 0;
      bool eventfd = false;
    };
    bool resettable = false;
    std::vector<Region> regions;
    std::vector<Irq> irqs;
  };

  explicit Impl(ClientOptions options);
  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Result<void> start(std::unique_ptr<Transport> transport);
  void close();

  // attach()
  Result<DeviceDescription> attach(std::span<const DmaWindow> windows,
                                   std::span<const SignalFd> signals);
  Result<wire::DeviceInfo> map_and_get_info(std::span<const DmaWindow> windows,
                                            std::uint32_t& rounds);
  Result<void> query(DeviceDescription& device, const wire::DeviceInfo& info,
                     std::span<const SignalFd> signals);
  Result<void> query_again(DeviceDescription& device, std::vector<Reply>& first,
                           std::span<const SignalFd> signals);

  // DMA windows
  Result<void> check_window(const DmaWindow& window) const;
  Result<void> dma_map(const DmaWindow& window);
  Result<void> dma_unmap(std::uint64_t address, std::uint64_t size);

  // Regions
  Result<void> check_access(std::uint32_t region, std::uint64_t offset, std::size_t size) const;
  Result<std::size_t> region_read(std::uint32_t region, std::uint64_t offset,
                                  std::span<std::byte> into);
  Result<void> region_write(std::uint32_t region, std::uint64_t offset,
                            std::span<const std::byte> from, Write how);
  Result<std::size_t> read_chunk(std::uint32_t region, std::uint64_t offset,
                                 std::span<std::byte> into);
  Result<void> write_chunk(std::uint32_t region, std::uint64_t offset,
                           std::span<const std::byte> from);
  Result<void> judge_write(std::uint32_t region, std::uint64_t offset, std::size_t size,
                           const Result<Reply>& reply);
  bool may_post(std::uint32_t region, std::size_t size) const;
  Result<std::vector<IoFd>> region_io_fds(std::uint32_t region);
  WriteAndIoFds region_write_and_io_fds(std::uint32_t region, std::uint64_t offset,
                                        std::span<const std::byte> from);
  Result<Reply> ask_io_fds(std::uint32_t region, std::uint32_t room);
  Result<std::vector<IoFd>> judge_io_fds(std::uint32_t region, std::uint64_t size,
                                         const std::vector<SparseArea>& areas, Result<Reply> reply,
                                         std::uint32_t room);

  // Interrupts
  Result<void> check_irqs(std::uint32_t index, std::uint32_t start, std::uint64_t count) const;
  Result<void> arm_irqs(std::uint32_t index, std::uint32_t start, std::span<const int> eventfds);
  Result<void> disable_irqs(std::uint32_t index);
  Result<void> act_on_irqs(std::uint32_t index, std::uint32_t start, std::uint32_t count,
                           std::uint32_t action);

  Result<void> reset();

  /// The error with the device and the request in front of it.
  tl::unexpected<Error> explain(Error error, const std::string& what) const;
  /// The reply breaks the protocol: the device is dead.
  tl::unexpected<Error> broken(const Error& fault, const std::string& what);
  [[nodiscard]] const Shape* shape() const {
    return attached_.load(std::memory_order_acquire) ? &shape_ : nullptr;
  }

  const ClientOptions options_;
  const std::string name_;
  Capabilities server_;  // constant once start() has returned
  DmaServer dma_;
  std::unique_ptr<Connection> connection_;  // constant once start() has returned
  std::unique_ptr<TwinServer> twin_;        // constant once start() has returned; may be none

  std::atomic<bool> attach_begun_{false};
  std::atomic<bool> attached_{false};
  Shape shape_;                       // constant once attached_
  std::atomic<bool> posting_{false};  // the device has neither a mapped page nor an ioeventfd
  std::mutex close_mutex_;            // one close() at a time
};

}  // namespace outboard::vfio_user
