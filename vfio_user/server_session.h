#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vfio_user/capabilities.h"
#include "vfio_user/codec.h"
#include "vfio_user/irq_table.h"
#include "vfio_user/message_reader.h"
#include "vfio_user/output_queue.h"
#include "vfio_user/server.h"
#include "vfio_user/transport.h"
#include "vfio_user/window_table.h"

namespace outboard::vfio_user {

/// What a session wants its server's event loop to watch. `key` comes back in on_ready().
class SessionEvents {
 public:
  SessionEvents() = default;
  SessionEvents(const SessionEvents&) = delete;
  SessionEvents& operator=(const SessionEvents&) = delete;
  virtual ~SessionEvents() = default;

  virtual Result<void> watch(int fd, bool writable_too, std::uint64_t key) = 0;
  virtual void rewatch(int fd, bool writable_too, std::uint64_t key) = 0;
  virtual void unwatch(int fd) = 0;
};

/// One client of a Server, from accept to the end: its socket and twin socket, what was negotiated,
/// its DMA windows and its interrupts. Used by the server's thread only.
class ServerSession final {
 public:
  /// The keys that this session gives to SessionEvents; all have kMaskFd or are one of these.
  static constexpr std::uint64_t kMainSocket = 1;
  static constexpr std::uint64_t kTwinSocket = 2;
  static constexpr std::uint64_t kMaskFd = std::uint64_t{1} << 63;

  ServerSession(std::unique_ptr<Transport> main, DeviceModel& model, const ServerOptions& options,
                Server::Counters& counters, SessionEvents& events);
  ServerSession(const ServerSession&) = delete;
  ServerSession& operator=(const ServerSession&) = delete;
  ~ServerSession();

  [[nodiscard]] Result<void> start();

  /// Something that was watched is ready.
  void on_ready(std::uint64_t key);
  /// Commands were set aside or read ahead while a DMA message was waited for: no socket shows
  /// them.
  [[nodiscard]] bool has_work() const;
  /// Handles these.
  void resume();

  /// Why the session has to end; nothing while it goes on.
  [[nodiscard]] const std::optional<Error>& end() const { return end_; }
  void end_with(Error error);
  /// Tells the model about the windows that go, and takes everything down. Once, before the end.
  void take_down();

  [[nodiscard]] bool negotiated() const { return negotiated_; }
  /// The client has hung up, although some of what it sent may not be read yet.
  [[nodiscard]] bool hung_up() const;

  WindowTable& windows() { return windows_; }
  IrqTable& irqs() { return irqs_; }
  int dma_read(std::uint64_t iova, std::span<std::byte> data);
  int dma_write(std::uint64_t iova, std::span<const std::byte> data);

 private:
  /// A command that is being handled, or waits for it; owns its payload.
  struct Pending {
    wire::Header header{};
    std::vector<std::byte> payload;
    std::vector<UniqueFd> fds;
  };
  /// An eventfd that masks or unmasks a vector when the client signals it.
  struct MaskFd {
    UniqueFd fd;
    std::uint64_t key = 0;
  };

  void read_main();
  void run_deferred();
  void read_twin();
  void handle(Pending command);
  /// 0 when the command has been answered, else the errno for an error reply.
  int dispatch(Pending& command);

  // Each answers 0 when it has replied, or the errno of an error reply.
  int on_version(Pending& command);
  int on_dma_map(Pending& command);
  int on_dma_unmap(Pending& command);
  int on_device_info(Pending& command);
  int on_region_info(Pending& command);
  int on_region_io_fds(Pending& command);
  int on_irq_info(Pending& command);
  int on_set_irqs(Pending& command);
  int on_region_read(Pending& command);
  int on_region_write(Pending& command);
  int on_write_multi(Pending& command);
  int on_reset(Pending& command);
  int on_feature(Pending& command);

  int set_mask_fds(const wire::SetIrqs& request, std::vector<UniqueFd> fds);
  void on_mask_fd(std::uint64_t key);
  void drop_mask_fds(std::uint32_t index);
  [[nodiscard]] int check_access(const wire::RegionAccess& access, std::uint32_t flag) const;
  void unmap(const WindowTable::Window* window);
  int refused(const Error& error);

  void send(const Message& message, std::span<const int> fds = {});
  void reply_to(const Pending& command, const Message& message, std::span<const int> fds = {});
  void flush();
  void say(const std::string& text) const;

  // DMA messages, in server_dma.cc.
  template <class Span>
  int dma(std::uint64_t iova, Span data);
  int file_io(const WindowTable::Window& window, std::uint64_t offset, std::span<std::byte> into);
  int file_io(const WindowTable::Window& window, std::uint64_t offset,
              std::span<const std::byte> from);
  int message_io(std::uint64_t iova, std::span<std::byte> into);
  int message_io(std::uint64_t iova, std::span<const std::byte> from);
  /// Sends and waits for the reply; `take` judges its payload and answers an errno.
  int exchange(const Message& request, const std::function<int(std::span<const std::byte>)>& take);
  int await_reply(const wire::Header& request, Deadline deadline,
                  const std::function<int(std::span<const std::byte>)>& take);
  int flush_until(Deadline deadline);
  void defer(IncomingMessage message);

  DeviceModel& model_;
  const ServerOptions& options_;
  Server::Counters& counters_;
  SessionEvents& events_;
  std::unique_ptr<Transport> main_;
  std::unique_ptr<Transport> twin_;  // null: server requests go over the main socket
  MessageReader main_reader_;
  MessageReader twin_reader_;
  OutputQueue output_;
  bool wants_writable_ = false;  // what `events_` was told about the main socket
  bool negotiated_ = false;
  bool said_unsealed_ = false;
  Capabilities client_;
  WindowTable windows_;
  IrqTable irqs_;
  std::vector<MaskFd> mask_fds_;
  std::deque<Pending> deferred_;
  std::size_t deferred_bytes_ = 0;
  bool reading_ = false;  // read_main() is at work: what is read ahead comes next
  std::vector<std::byte> reply_data_;
  std::uint16_t next_id_ = 0;
  std::optional<Error> end_;
};

}  // namespace outboard::vfio_user
