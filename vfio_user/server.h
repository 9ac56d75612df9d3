#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vfio_user/capabilities.h"
#include "vfio_user/result.h"
#include "vfio_user/sparse_area.h"
#include "vfio_user/unique_fd.h"
#include "vfio_user/wire.h"

namespace outboard::vfio_user {

/// A region as its client sees it.
struct ServerRegion {
  std::uint32_t flags = 0;          ///< wire::kRegionReadable, kRegionWritable, kRegionMappable
  std::uint64_t size = 0;           ///< bytes; 0: the region does not exist
  std::uint64_t file_offset = 0;    ///< of the region's first byte in `fd`
  std::vector<SparseArea> areas{};  ///< what may be mapped; empty with kRegionMappable: all of it
  int fd = -1;                      ///< for mmap; borrowed from the device
};

/// An interrupt index as its client sees it.
struct ServerIrq {
  std::uint32_t flags = 0;  ///< wire::kIrqEventfd, kIrqMaskable, kIrqAutomasked, kIrqNoResize
  std::uint32_t count = 0;  ///< vectors; 0: the index does not exist
};

/// What a PCI device consists of.
struct DeviceShape {
  std::array<ServerRegion, wire::kPciRegions> regions;
  std::array<ServerIrq, wire::kPciIrqs> irqs;
  bool resettable = true;
};

/// A piece of guest memory that the client lent.
struct ServerWindow {
  std::uint64_t address = 0;  ///< guest-physical, or I/O virtual
  std::uint64_t size = 0;
  std::span<std::byte> host;  ///< mapped here; empty when only dma_read() and dma_write() reach it
  bool readable = false;
  bool writable = false;  ///< if not, `host` is mapped read-only: a store to it is a SIGSEGV
  bool sealed = false;    ///< cannot be truncated by the client; if not, an access can be a SIGBUS
  std::uint64_t file_device = 0;  ///< of its file, as stat(2) gives them; 0 and 0: it has none
  std::uint64_t file_inode = 0;
  std::uint64_t file_offset = 0;  ///< of the window's first byte
};

/// A range of a region whose writes signal an eventfd instead of being sent as messages.
struct ServerIoFd {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;   ///< 0 (any width), 1, 2, 4 or 8
  int fd = -1;              ///< an eventfd; borrowed from the device
  std::uint32_t flags = 0;  ///< wire::kIoEventFdDatamatch, kIoEventFdPio
  std::uint64_t datamatch = 0;
};

/// The device behind a Server: implemented by a device author. Every call comes from the thread
/// that is in Server::process(), or, for dma_unmapping() and disconnected(), in the Server's
/// destructor. The model may call the Server's translate(), dma_read(), dma_write() and trigger()
/// from inside.
class DeviceModel {
 public:
  DeviceModel() = default;
  DeviceModel(const DeviceModel&) = delete;
  DeviceModel& operator=(const DeviceModel&) = delete;
  virtual ~DeviceModel() = default;

  /// Read whenever a client asks; sizes and counts stay the same for the life of a connection.
  [[nodiscard]] virtual const DeviceShape& shape() const = 0;

  /// One access, of the width that the client used; inside the region, of at least 1 byte, and
  /// allowed by its flags. Returns 0 or a positive errno; a read fills all of `data` or fails.
  virtual int region_read(std::uint32_t region, std::uint64_t offset,
                          std::span<std::byte> data) = 0;
  virtual int region_write(std::uint32_t region, std::uint64_t offset,
                           std::span<const std::byte> data) = 0;

  /// DEVICE_RESET: the state as after power-on. Windows and armed interrupts stay.
  virtual void reset() = 0;

  /// For a device that can go on where a predecessor was killed: what VERSION tells the client
  /// about it. Called before connected(), for each client that asks for it; any other client must
  /// find the device as after reset().
  virtual std::optional<ResumeCapability> resume() { return std::nullopt; }
  /// A client has agreed on a version.
  virtual void connected() {}
  /// The client is gone; its windows and eventfds already are. The next one finds what reset() and
  /// this leave behind.
  virtual void disconnected() {}

  virtual void dma_mapped(const ServerWindow&) {}
  /// Stop using the window before returning: it is unmapped then.
  virtual void dma_unmapping(const ServerWindow&) {}

  /// Eventfds of this index were armed or taken away.
  virtual void irqs_armed(std::uint32_t /*index*/) {}
  /// These vectors were unmasked. A level-triggered device raises again if it still has a reason.
  virtual void irq_unmasked(std::uint32_t /*index*/, std::uint32_t /*start*/,
                            std::uint32_t /*count*/) {}

  /// The eventfds to offer for a region now.
  virtual std::vector<ServerIoFd> io_fds(std::uint32_t /*region*/) { return {}; }
};

struct ServerOptions {
  std::uint32_t max_msg_fds = 16;                   ///< QEMU refuses a server with more
  std::uint64_t max_data_xfer_size = 1024 * 1024;   ///< bytes of data in one message
  std::uint32_t max_dma_maps = 1024;                ///< live windows
  bool twin_socket = true;                          ///< grant it to a client that asks
  bool write_multiple = true;                       ///< offer REGION_WRITE_MULTI
  bool wide_io_fds = false;                         ///< entries as libvfio-user lays them out
  bool require_sealed_memory = false;               ///< refuse windows that can be truncated
  std::size_t max_queued_output = 4 * 1024 * 1024;  ///< bytes for a slow client, then it is dropped
  std::chrono::milliseconds version_timeout{5000};  ///< for a client that connects and is silent
  std::chrono::milliseconds dma_timeout{5000};      ///< for the client's answer to a DMA message
  /// Lines for the device's log: clients that come, go, or break the protocol. May be empty.
  std::function<void(const std::string&)> log;
};

/// Serves one device to one client at a time over vfio-user. Single-threaded: one owner thread
/// drives it from an event loop of its own, and calls every member.
class Server final {
 public:
  /// Binds `path`; the socket file is removed again by the destructor.
  static Result<std::unique_ptr<Server>> listen(const std::string& path, DeviceModel& model,
                                                ServerOptions options = {});
  /// Serves the clients of a socket that is listening already.
  static Result<std::unique_ptr<Server>> listen(UniqueFd listening, DeviceModel& model,
                                                ServerOptions options = {});
  /// Serves the one client at the other end of a connected socket.
  static Result<std::unique_ptr<Server>> attach(UniqueFd connected, DeviceModel& model,
                                                ServerOptions options = {});

  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server();

  /// An epoll fd: readable when process() has something to do.
  [[nodiscard]] int poll_fd() const;

  /// Handles what is there, a bounded amount of it, and never waits, except for a device that calls
  /// dma_read() or dma_write() on a window without an fd. A second client is closed at once; a
  /// client that goes away or breaks the protocol is cleaned up after, and the next one can come.
  /// Errors are those of the listening socket, after which the Server is of no use.
  Result<void> process();

  /// Host memory when [iova, iova + size) lies inside one mapped window with that permission, else
  /// an empty span. Valid until the window's dma_unmapping() returns. `size` of 0 is empty.
  [[nodiscard]] std::span<std::byte> translate(std::uint64_t iova, std::uint64_t size, bool write);

  /// Copies from or to guest memory, whatever kind its windows are: by memcpy, by the window's
  /// file, or by DMA_READ and DMA_WRITE messages (over the twin socket if there is one, else over
  /// the main socket, where commands that arrive in between are kept for process()). The range may
  /// span adjacent windows. Returns 0 or an errno: EFAULT (no window), EPERM (its permission),
  /// ETIMEDOUT, ENOTCONN, or what the client answered.
  int dma_read(std::uint64_t iova, std::span<std::byte> data);
  int dma_write(std::uint64_t iova, std::span<const std::byte> data);

  /// Signals a vector. 0 also when it is masked (then it stays pending until unmasked); ENOENT when
  /// the client has not armed it; EINVAL when the shape has no such vector.
  int trigger(std::uint32_t index, std::uint32_t vector);
  /// Whether the client has armed the vector.
  [[nodiscard]] bool armed(std::uint32_t index, std::uint32_t vector) const;

  /// Whether a client is there that has agreed on a version.
  [[nodiscard]] bool connected() const;

  struct Counters {
    std::array<std::uint64_t, wire::kCommandLimit> commands{};  ///< by wire::Command; [0]: unknown
    std::uint64_t posted = 0;                                   ///< commands that wanted no reply
    std::uint64_t error_replies = 0;
    std::uint64_t triggers = 0;       ///< eventfds signalled
    std::uint64_t dma_messages = 0;   ///< DMA_READ and DMA_WRITE sent
    std::uint64_t stray_replies = 0;  ///< drained and dropped
    std::uint64_t connections = 0;    ///< clients accepted
    std::uint64_t refused = 0;        ///< clients closed because another was there
    std::uint64_t dropped = 0;        ///< clients that broke the protocol, or were too slow
  };
  [[nodiscard]] const Counters& counters() const;

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace outboard::vfio_user
