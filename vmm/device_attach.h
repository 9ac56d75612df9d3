#pragma once

// The devices of a machine while they are being attached: a thread each, which waits for the
// server, connects, negotiates, maps guest memory and asks what the device is. The machine goes on
// with its own set-up meanwhile. Made, waited for and destroyed on the main thread.

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "devices/device_marks.h"
#include "vmm/device_connect.h"
#include "vmm/error.h"
#include "vmm/event_loop.h"
#include "vmm/guest_memory.h"
#include "vmm/machine_config.h"
#include "vmm/sandbox.h"
#include "vmm/trace.h"

namespace outboard::vmm {

class DeviceAttach {
 public:
  using AwaitSocket = std::function<vfio_user::Result<std::string>(const DeviceConfig&)>;

  // Starts a thread for each of `devices`, which outlive this object, as does `memory`.
  // marks[i] is stamped for devices[i]. `trace`, which may be none, outlives the clients and gets
  // their messages. `sandbox`, which may be none, outlives this object; each thread enters it.
  DeviceAttach(const std::vector<DeviceConfig>& devices,
               const std::vector<devices::DeviceMarks*>& marks, const GuestMemory& memory,
               AwaitSocket await_socket, EventLoop& loop, Trace* trace = nullptr,
               Sandbox* sandbox = nullptr);
  DeviceAttach(const DeviceAttach&) = delete;
  DeviceAttach& operator=(const DeviceAttach&) = delete;
  ~DeviceAttach();  // cancels what is under way, and waits for it

  // All threads have come to an end, or one has failed.
  [[nodiscard]] bool decided() const;

  // The devices in the order of the configuration, or the first error in that order
  // (ExitStatus::device_attach). Call once, when decided().
  [[nodiscard]] Result<std::vector<AttachedDevice>> take();

 private:
  struct Attempt {
    std::thread thread;
    devices::DeviceMarks* marks = nullptr;           // constant
    vfio_user::MessageObserver* observer = nullptr;  // constant
    ConnectCancel cancel;                            // any thread
    bool done = false;                               // under mutex_
    std::optional<vfio_user::Error> error;           // under mutex_
    AttachedDevice device;                           // under mutex_
  };

  void attach(const DeviceConfig& config, Attempt& attempt);
  vfio_user::Result<void> try_attach(const DeviceConfig& config, Attempt& attempt);
  void join();

  const std::vector<DeviceConfig>& devices_;
  const GuestMemory& memory_;
  const AwaitSocket await_socket_;
  EventLoop& loop_;
  Sandbox* const sandbox_;  // may be none
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Attempt>> attempts_;  // fixed by the constructor
};

}  // namespace outboard::vmm
