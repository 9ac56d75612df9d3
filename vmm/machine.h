#pragma once

// The machine: guest memory, vCPUs, interrupt routing, the buses, the console, the PCI host bridge
// and a PCI function for every vfio-user device, put together from a MachineConfig.
//
// Owned by the command that runs it. Created, run and destroyed on the main thread. It starts the
// vCPU threads and, while it is being created, one thread a device that attaches.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vfio_user/result.h"
#include "vmm/error.h"
#include "vmm/exit_status.h"
#include "vmm/machine_config.h"

namespace outboard::vmm {

class ConsoleBackend;
class EventLoop;
class Marks;
class Sandbox;
class Trace;
struct MachineCounters;

// Why `Machine::run` returned.
struct ExitReason {
  ExitStatus status = ExitStatus::powered_off;
  int signal = 0;       // with ExitStatus::signal_base: the signal that ended the machine
  std::string message;  // one line for the log; empty when there is nothing to say

  // What the program returns to its parent.
  [[nodiscard]] int exit_code() const {
    return to_int(status) + (status == ExitStatus::signal_base ? signal : 0);
  }
};

// Why somebody outside the guest wants the machine to end at once.
struct StopReason {
  ExitStatus status = ExitStatus::powered_off;
  int signal = 0;
  std::string message;
};

// What the machine uses and does not own. All must outlive it.
struct MachineParts {
  EventLoop& loop;          // driven by Machine::create (while devices attach) and Machine::run
  ConsoleBackend& console;  // started by Machine::run, stopped when it returns
  Marks& marks;             // time stamps from process start to power-off
  // Returns the path of the device's listening socket; may block until its server is up. Called
  // once a device, each call on that device's own attach thread. Empty: `DeviceConfig::socket`.
  std::function<vfio_user::Result<std::string>(const DeviceConfig&)> await_socket = {};
  // The same for a server that has died, from then on and on the device's own thread; see
  // Reconnector::FindSocket.
  std::function<vfio_user::Result<std::string>(const DeviceConfig&, bool insist, int cancel_fd)>
      revive_socket = {};
  Trace* trace = nullptr;  // gets every exit and every message; may be none
  // Called by Machine::run as soon as the vCPUs have been let loose; may be empty.
  std::function<void()> started = {};
  // Every thread of the machine enters it, the calling one when Machine::run starts the guest; may
  // be none.
  Sandbox* sandbox = nullptr;
};

// One BAR of one device, as pre-placed before the guest starts.
struct PlacedBar {
  std::string device;
  std::uint32_t slot = 0;  // 00:slot.0
  std::uint32_t bar = 0;   // 0..5, 6 is the expansion ROM
  std::uint64_t address = 0, size = 0;
  std::string kind;  // "64-bit prefetchable", "32-bit", "I/O", "ROM"
};

class Machine {
 public:
  // Opens KVM, makes guest memory and vCPUs, attaches every device in parallel with loading the
  // kernel, and leaves the vCPUs parked at the kernel's entry. SIGINT, SIGTERM and SIGUSR1 are
  // blocked in the calling thread from here on (they arrive through the event loop); a SIGINT or
  // SIGTERM during creation ends it with ExitStatus::signal_base. Child processes started later
  // must unblock them.
  [[nodiscard]] static Result<std::unique_ptr<Machine>> create(const MachineConfig& config,
                                                               const MachineParts& parts);

  virtual ~Machine() = default;

  // Runs the guest until it ends; drives the event loop on the calling (main) thread. Call once.
  [[nodiscard]] virtual ExitReason run() = 0;

  // Presses the ACPI power button, as SIGTERM and Ctrl-A p do. A second press within the deadline
  // (`power_button_deadline`) is one more press; the deadline counts from the first. Any thread.
  virtual void press_power_button() = 0;

  // Ends the machine without asking the guest. Any thread; the first reason wins.
  virtual void request_stop(StopReason reason) = 0;

  [[nodiscard]] virtual std::vector<PlacedBar> placed_bars() const = 0;

  // Exits by kind, messages by device and command. Main thread, at any time after creation.
  [[nodiscard]] virtual MachineCounters counters() const = 0;

  // The same for people, with the boot times and the memory in use. Several lines, each ended by
  // '\n'. Main thread, at any time after creation.
  [[nodiscard]] virtual std::string statistics() const = 0;
};

}  // namespace outboard::vmm
