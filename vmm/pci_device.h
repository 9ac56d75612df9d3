#pragma once

// One device of the configuration, plugged into the PCI bus: the function that stands for it, with
// the connection to its server, and who brings the server back, where that is wanted. Owned by the
// machine; destroyed after the vCPUs have stopped.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "devices/bar_allocator.h"
#include "devices/vfio_function.h"
#include "vmm/device_attach.h"
#include "vmm/error.h"
#include "vmm/machine.h"
#include "vmm/machine_config.h"
#include "vmm/machine_counters.h"
#include "vmm/reconnector.h"

namespace outboard::vmm {

class PciDevice {
 public:
  // Makes the function of an attached device and places its BARs. `config` and `marks` outlive it.
  // `lost` is called once on the event loop when the server is gone for good; `stop`, also there,
  // when the server has signalled what the configuration stops the machine for. With
  // OnDisconnect::reconnect a thread is started that uses `memory` and `find_socket` (see
  // Reconnector). The threads of the device enter `sandbox`, which may be none. Errors:
  // ExitStatus::device_attach.
  [[nodiscard]] static Result<PciDevice> plug(
      const DeviceConfig& config, std::uint32_t slot, AttachedDevice attached,
      const devices::Machine& services, devices::BarAllocator& allocator,
      devices::DeviceMarks& marks, const GuestMemory& memory,
      const Reconnector::FindSocket& find_socket, Sandbox* sandbox,
      std::function<void(const DeviceConfig&, const vfio_user::Error&)> lost,
      const std::function<void(StopReason)>& stop);

  [[nodiscard]] std::uint32_t slot() const { return slot_; }
  [[nodiscard]] devices::VfioFunction& function() { return *function_; }

  // Ends the connection: a vCPU that waits for the server goes on at once. Any thread.
  void close() {
    if (reconnector_) reconnector_->cancel();
    function_->close();
  }
  // Whether a vCPU may wait for a server to come back: not while the vCPUs are to pause. Any
  // thread.
  void let_wait(bool may) { function_->let_wait(may); }

  // Its loss ends the machine, and it is lost: the event loop is told, or about to be. Any thread.
  [[nodiscard]] bool stops_machine() const;

  // The BARs where they are now. Main thread.
  [[nodiscard]] std::vector<PlacedBar> bars() const;

  // Any thread.
  [[nodiscard]] DeviceCounters counters() const;

 private:
  PciDevice(const DeviceConfig& config, std::uint32_t slot) : config_(&config), slot_(slot) {}

  const DeviceConfig* config_;
  std::uint32_t slot_;
  const devices::DeviceMarks* marks_ = nullptr;
  std::uint64_t attach_round_trips_ = 0;
  std::unique_ptr<devices::VfioFunction> function_;
  std::unique_ptr<Reconnector> reconnector_;  // may be none; uses the function
};

}  // namespace outboard::vmm
