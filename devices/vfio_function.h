// The PCI function that stands for a device behind a vfio-user socket: config space, BARs and
// interrupts as the guest sees them, and the messages they cost.
//
// Owns the connection to the server, the config shadow, the BAR mappings (bus ranges and memslots),
// the eventfds of the interrupts and the watches on the client. Uses the machine's services, which
// outlive it.
//
// A server that dies may come back, if the options say so: then whoever has the new connection
// takes the function through disconnect() and reconnect(), and the guest's accesses wait meanwhile,
// for a while (see device_link.h). Else the function is dead from then on.
//
// Locks: see devices/README.md. Config and MSI-X table accesses are serialised per function; BAR
// accesses run side by side with no lock held while the server is asked.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "devices/bar_allocator.h"
#include "devices/bar_info.h"
#include "devices/bus.h"
#include "devices/device_marks.h"
#include "devices/event_loop.h"
#include "devices/id_overrides.h"
#include "devices/interrupts.h"
#include "devices/ioevents.h"
#include "devices/link_state.h"
#include "devices/log_sink.h"
#include "devices/mapper.h"
#include "devices/pci_function.h"
#include "devices/result.h"
#include "devices/signal_fds.h"
#include "vfio_user/client.h"

namespace outboard::devices {

// The machine's services a function uses; all outlive it.
struct Machine {
  Bus& bus;
  PageMapper& pages;
  MsiRouter& msi;
  IntxRouter& intx;
  IoEvents& io_events;
  EventLoop& loop;
};

struct VfioFunctionOptions {
  std::string name;                       // for messages
  std::uint32_t slot = 0;                 // device number on bus 0
  std::optional<std::uint32_t> intx_gsi;  // none: the function has no interrupt pin
  IdOverrides ids;
  std::uint32_t max_vectors = 2048;  // MSI-X vectors shown to the guest at most
  // By region index (0-5 BARs, 6 ROM): false keeps every access trapped.
  std::array<bool, 7> map_region{true, true, true, true, true, true, true};
  LogSink log;
  // Stamped from the guest's first access on; outlives the function. None: nothing is stamped.
  DeviceMarks* marks = nullptr;
  // How long accesses wait for a server that is gone. None: they do not, and it cannot come back.
  std::optional<std::chrono::milliseconds> hold;
  // With a hold: called once a loss, on any thread, perhaps inside an access: only to wake
  // somebody.
  std::function<void()> on_down;
  // Called once, on the event loop, when the device is dead for good: without a hold, when the
  // server is gone or has taken back pages it shared; else after give_up(). The function has
  // already taken down its interrupts, and answers accesses with all ones.
  std::function<void(const vfio_user::Error&)> on_lost;
  // Called on the event loop when the server has signalled REQ (it wants the device removed) or
  // ERR, however often since the last call; the function itself counts and logs them. Without a
  // handler the server is not asked for the event.
  std::function<void()> on_removal_request;
  std::function<void()> on_device_error;
  // Called first on the thread that an interrupt pin in use takes; may be empty.
  std::function<void()> intx_thread_started = {};
};

// What the function did, for --stats and tests. Each a running total.
struct VfioFunctionCounters {
  std::uint64_t bar_reads = 0;  // trapped, sent to the server
  std::uint64_t bar_writes = 0;
  std::uint64_t access_errors = 0;  // answered with an error or not at all
  std::uint64_t config_forwards = 0;
  std::uint64_t config_errors = 0;  // forwarded config accesses the server refused
  std::uint64_t intx_unmasks = 0;
  std::uint64_t device_errors = 0;     // signals of ERR
  std::uint64_t removal_requests = 0;  // signals of REQ
  std::uint64_t lines_suppressed = 0;  // log lines beyond the rate limit
};

// How a reconnect ended.
struct Reconnected {
  enum class Kind {
    resumed,  // the device goes on where it was
    reset,    // it was reset
    refused,  // there is another device
    lost,     // the connection died again
  };
  Kind kind = Kind::lost;
  std::string why;  // of the last two
};

class VfioFunction final : public PciFunction {
 public:
  // Takes what Client::attach() returned, and the eventfds it was given, if any. Fails with one
  // clear line when the device cannot be shown to a guest (no config space, all ones, a BAR layout
  // that does not fit). Becomes the owner of the client, with its down handler and its poll fd.
  [[nodiscard]] static Result<std::unique_ptr<VfioFunction>> create(
      std::shared_ptr<vfio_user::Client> client, vfio_user::DeviceDescription description,
      const Machine& machine, VfioFunctionOptions options, SignalFds signals = {});

  // The vCPUs have stopped. Unmaps, disconnects and unwatches everything; sends nothing.
  ~VfioFunction() override;
  VfioFunction(const VfioFunction&) = delete;
  VfioFunction& operator=(const VfioFunction&) = delete;

  // Gives every BAR its address; once, before the guest starts. Decoding stays off: the guest's
  // driver turns it on.
  [[nodiscard]] Result<void> place_bars(BarAllocator& allocator);

  std::uint32_t config_read(std::uint32_t reg, std::uint32_t size) override;
  void config_write(std::uint32_t reg, std::uint32_t size, std::uint32_t value) override;

  // Machine reset: interrupts disabled, BARs back where place_bars() put them, decoding off, then
  // one Client::reset(), then the shadow re-read. Errors are logged, the machine goes on.
  void reset() override;

  // --- a server that comes back: one thread, not the event loop's, after on_down ---

  // Mutes the interrupts, takes shared pages and ioeventfds from the guest, and lets go of the old
  // client with all that came from its server. Nothing when that is done already.
  void disconnect();
  // Takes a new connection into use; blocks while it asks the server. Refused or lost, the function
  // is as after disconnect().
  [[nodiscard]] Reconnected reconnect(std::shared_ptr<vfio_user::Client> client,
                                      vfio_user::DeviceDescription description, SignalFds signals);
  // For its state: an attempt begins; it has failed; there will be no other.
  void trying();
  void not_yet(const std::string& why);
  void give_up(const std::string& why);

  // --- any thread ---

  // Whether accesses may wait for a server to come back; at first they may.
  void let_wait(bool may);
  // The machine ends: the connection is closed, and no access waits any more.
  void close();

  LinkCounters link() const;
  // Over all connections there have been.
  vfio_user::ClientCounters messages() const;
  // When the server was lost last.
  std::chrono::steady_clock::time_point lost_at() const;

  const std::string& name() const;
  std::vector<BarInfo> bars() const;
  VfioFunctionCounters counters() const;

 private:
  class Impl;
  explicit VfioFunction(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;  // shared with callbacks in flight on the event loop
};

}  // namespace outboard::devices
