// The event loop of the program: the vfio-user server, the backends, signals, and the doorbells
// that nobody announces. One thread.
#pragma once

#include <chrono>
#include <functional>

#include "tools/nvme/vfio_device.h"
#include "vfio_user/server.h"

namespace outboard::nvme {

struct LoopOptions {
  // After the last thing that happened the doorbell page is looked at without a pause for so long,
  std::chrono::nanoseconds spin = std::chrono::microseconds(30);
  // then at intervals that double from the first to the last.
  std::chrono::nanoseconds first_interval = std::chrono::microseconds(50);
  std::chrono::nanoseconds last_interval = std::chrono::milliseconds(2);
  bool once = false;  // end when the first client has left
  // Called, between turns, once a first read was completed after an enabling of the controller.
  std::function<void(const IoTimes&)> first_read;
};

// Runs until `signal_fd` (a signalfd) is readable or, with `once`, the client has left.
vfio_user::Result<void> run_service(vfio_user::Server& server, VfioDevice& device, int signal_fd,
                                    const LoopOptions& options);

}  // namespace outboard::nvme
