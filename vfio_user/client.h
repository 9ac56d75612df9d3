// The client end of one vfio-user connection: a device that lives in another process.
//
// Owns the socket, the twin socket with its thread, and the table of DMA windows. Knows no KVM and
// no PCI beyond the region and interrupt indexes. Every member may be called from any thread at the
// same time unless it says otherwise.
//
// Who waits, reads: there is no reader thread. A thread that waits for its reply reads the socket,
// serves the requests of the server it meets, hands other threads theirs, and passes the role on
// when its own has come. While nobody waits, poll_fd() is readable when there is something to do,
// and the event loop calls service().
//
// Nothing the peer says is trusted: a protocol error (or a number of time-outs in a row) makes the
// device dead, which wakes every waiter at once; from then on every call fails at once with the
// reason. Nothing else happens to the process.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "vfio_user/capabilities.h"
#include "vfio_user/client_counters.h"
#include "vfio_user/device_description.h"
#include "vfio_user/dma_window.h"
#include "vfio_user/io_fd.h"
#include "vfio_user/message_observer.h"
#include "vfio_user/result.h"

namespace outboard::vfio_user {

class Transport;

// How long a request may take, by class; measured from the call on the steady clock.
struct Timeouts {
  std::chrono::milliseconds connect{5000};
  std::chrono::milliseconds version{5000};
  std::chrono::milliseconds setup{5000};   // GET_*, SET_IRQS
  std::chrono::milliseconds access{5000};  // REGION_*
  std::chrono::milliseconds dma{5000};     // DMA_MAP, DMA_UNMAP
  std::chrono::milliseconds reset{5000};
};

// Whether a write that may be posted is sent with No_reply. `automatic`: only on a device without a
// mappable area and without an ioeventfd, since a store to a page or an eventfd could overtake a
// posted write. Never to configuration space.
enum class Posting { automatic, off };

enum class Write { wait, may_post };

struct ClientOptions {
  std::string name;  // for messages; the socket path if empty
  Timeouts timeouts;
  bool offer_twin_socket = true;
  Posting posted_writes = Posting::automatic;
  // Deadlines that pass in a row, requests in flight together counted once; a reply in time starts
  // the count anew.
  std::uint32_t timeouts_until_dead = 3;
  Capabilities offered = default_offer();
  // How long the thread of an access looks at the socket again and again before it sleeps, where
  // that helps (ReplyPoll). 0: never.
  std::chrono::microseconds reply_poll{};
  // Told of every message; outlives the client. None: no time is taken.
  MessageObserver* observer = nullptr;
  // Called on the twin socket's thread before it does anything else; may be empty.
  std::function<void()> twin_thread_started = {};

  // As many fds as one message can carry (253), 1 MiB of data, WRITE_MULTI understood, "resume"
  // asked for.
  static Capabilities default_offer();
};

class Client final {
 public:
  using Counters = ClientCounters;

  // Connects to the Unix socket at `path` and negotiates VERSION; on return the server has
  // answered.
  [[nodiscard]] static Result<std::unique_ptr<Client>> connect(const std::string& path,
                                                               ClientOptions options = {});
  // The same over a transport that is connected already.
  [[nodiscard]] static Result<std::unique_ptr<Client>> adopt(std::unique_ptr<Transport> transport,
                                                             ClientOptions options = {});
  ~Client();  // close()
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // What the server announced in VERSION; constant after connect().
  [[nodiscard]] const Capabilities& server() const;
  // The name from the options, or the socket path; constant.
  [[nodiscard]] const std::string& name() const;

  // Maps `windows` and asks everything there is to know about a PCI device, in few round trips: all
  // DMA_MAPs and GET_INFO are in flight at once, then all region and interrupt queries, then the
  // second region queries and the whole configuration space. With no windows (probe) the device is
  // only read. On failure the windows mapped so far are unmapped again; the error names the window
  // or the query. `signals` are armed in the last of these round trips, where the device has such
  // an interrupt; one that the server refuses stays unarmed, see Irq. Once in the life of a client.
  [[nodiscard]] Result<DeviceDescription> attach(std::span<const DmaWindow> windows,
                                                 std::span<const SignalFd> signals = {});

  // Gives the server a piece of guest memory. Fails before anything is sent if the window does not
  // fit the server's pgsizes or max_dma_maps, or overlaps another. `window.host` must stay valid
  // until the window is unmapped or the client closed.
  [[nodiscard]] Result<void> dma_map(const DmaWindow& window);
  // Takes back exactly one window. On success nobody uses the memory any more; on any failure
  // except a dead device it must be taken as still in use by the server.
  [[nodiscard]] Result<void> dma_unmap(std::uint64_t address, std::uint64_t size);

  // Reads `into.size()` bytes at `offset` of `region`. Up to 8 bytes are one message of exactly
  // that width; more are chunked to the server's max_data_xfer_size. Returns the bytes read: fewer
  // only when the server says so.
  [[nodiscard]] Result<std::size_t> region_read(std::uint32_t region, std::uint64_t offset,
                                                std::span<std::byte> into);
  // Writes likewise. With may_post the call may return before the server has seen the write (see
  // Posting); any later request of this client is executed after it.
  [[nodiscard]] Result<void> region_write(std::uint32_t region, std::uint64_t offset,
                                          std::span<const std::byte> from, Write how = Write::wait);

  // Whether a write with may_post may be posted to this device; constant after attach().
  [[nodiscard]] bool posts() const;

  // Gives vectors start..start+n-1 of interrupt `index` an eventfd each; -1 takes a vector's
  // eventfd away. Split into messages of max_msg_fds. If a message fails, vectors that this call
  // had armed are disarmed again.
  [[nodiscard]] Result<void> arm_irqs(std::uint32_t index, std::uint32_t start,
                                      std::span<const int> eventfds);
  // Takes all eventfds of `index` away. No message, success, if the index has no vectors.
  [[nodiscard]] Result<void> disable_irqs(std::uint32_t index);
  [[nodiscard]] Result<void> mask_irqs(std::uint32_t index, std::uint32_t start,
                                       std::uint32_t count);
  [[nodiscard]] Result<void> unmask_irqs(std::uint32_t index, std::uint32_t start,
                                         std::uint32_t count);
  // Makes the server signal its eventfds, a self-test.
  [[nodiscard]] Result<void> trigger_irqs(std::uint32_t index, std::uint32_t start,
                                          std::uint32_t count);

  // DEVICE_RESET, if the device says it can; else no message, success.
  [[nodiscard]] Result<void> reset();

  // The ranges of `region` whose stores reach the server through an eventfd; empty if the server
  // offers none or does not know the command. Every entry lies inside the region and overlaps no
  // other; entries of a type no kernel takes are left out.
  [[nodiscard]] Result<std::vector<IoFd>> region_io_fds(std::uint32_t region);
  // region_write() with Write::wait of at most 8 bytes, and region_io_fds() of the same region as
  // the server sees it after that write. Both are in flight together, one round trip, but one after
  // the other where only one request may be in flight.
  struct WriteAndIoFds {
    Result<void> written;
    Result<std::vector<IoFd>> io_fds;
  };
  [[nodiscard]] WriteAndIoFds region_write_and_io_fds(std::uint32_t region, std::uint64_t offset,
                                                      std::span<const std::byte> from);

  [[nodiscard]] bool alive() const;
  // Why the device is dead; meaningless while it is alive.
  [[nodiscard]] Error death() const;

  // For the event loop: an epoll fd, readable while nobody waits and there is something to read, or
  // something queued can be sent. The loop calls service(), which never blocks.
  [[nodiscard]] int poll_fd() const;
  void service();

  // Called once, from whichever thread noticed the death, or at once if the device is dead already.
  // Must not call back into the client (post it to the event loop). Not called for close().
  void set_down_handler(std::function<void(const Error&)> handler);

  // Ends the connection: wakes all waiters, joins the twin thread, forgets the windows. Idempotent.
  // Not from the down handler.
  void close();

  [[nodiscard]] Counters counters() const;

 private:
  class Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace outboard::vfio_user
