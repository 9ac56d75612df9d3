// The PCI function that stands for a device behind a vfio-user socket: config space, BARs and
// interrupts as the guest sees them, and the messages they cost.
//
// Owns the config shadow, the BAR mappings (bus ranges and memslots), the eventfds of the
// interrupts and the watches on the client. Uses the client and the machine's services, which
// outlive it.
//
// Locks: see devices/README.md. Config and MSI-X table accesses are serialised per function; BAR
// accesses run side by side with no lock held while the server is asked.
#pragma once

#include <array>
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
  // Called once, on the event loop, when the server is gone or has taken back pages it shared; the
  // function has already taken down its interrupts, and answers accesses with all ones.
  std::function<void(const vfio_user::Error&)> on_lost;
  // Called on the event loop when the server has signalled REQ (it wants the device removed) or
  // ERR, however often since the last call; the function itself counts and logs them. Without a
  // handler the server is not asked for the event.
  std::function<void()> on_removal_request;
  std::function<void()> on_device_error;
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

class VfioFunction final : public PciFunction {
 public:
  // Takes what Client::attach() returned, and the eventfds it was given, if any. Fails with one
  // clear line when the device cannot be shown to a guest (no config space, all ones, a BAR layout
  // that does not fit). Becomes the owner of the client's down handler, and watches its poll fd.
  [[nodiscard]] static Result<std::unique_ptr<VfioFunction>> create(
      vfio_user::Client& client, vfio_user::DeviceDescription description, const Machine& machine,
      VfioFunctionOptions options, SignalFds signals = {});

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

  const std::string& name() const;
  std::vector<BarInfo> bars() const;
  VfioFunctionCounters counters() const;

 private:
  class Impl;
  explicit VfioFunction(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;  // shared with callbacks in flight on the event loop
};

}  // namespace outboard::devices
