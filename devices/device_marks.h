// The steps of one device from its socket to the guest's first completed I/O.
#pragma once

#include <cstddef>

#include "devices/first_times.h"

namespace outboard::devices {

enum class DeviceMark : std::size_t {
  connected,            // the socket is connected
  negotiated,           // VERSION is answered
  mapped,               // the server has every DMA window
  described,            // regions, interrupts and config space are known
  config_access,        // the guest's first access to the function's config space
  bar_access,           // the guest's first trapped access to a BAR
  memory_decoding,      // COMMAND.MSE is set
  msix_enabled,         // the MSI-X enable bit is set
  nvme_enabled,         // NVMe: CC.EN is written 1
  nvme_ready,           // NVMe: CSTS.RDY is read as 1
  io_vector,            // NVMe: a vector other than 0 is connected, which I/O queues have alone
  first_interrupt,      // NVMe: the first signal of any vector
  first_io_completion,  // NVMe: the first signal of a vector other than 0
  count,
};

using DeviceMarks = FirstTimes<DeviceMark>;

// NVMe: vector 0, the admin queue's, has signalled and no other was ever connected. If the guest
// has done I/O, its completions came by that vector, and the first of them is not known.
[[nodiscard]] inline bool shares_one_vector(const DeviceMarks& marks) {
  return marks.at(DeviceMark::first_interrupt).has_value() &&
         !marks.at(DeviceMark::io_vector).has_value();
}

}  // namespace outboard::devices
