// Whether the device behind a socket is the one that was there before.
#pragma once

#include <string>

#include "vfio_user/device_description.h"

namespace outboard::devices {

// What the guest relies on and what differs: ids, header type, kinds of BARs, capabilities, MSI-X
// structures, regions with their shared areas, interrupts. One line; empty when nothing does.
// Registers that change in use do not count.
std::string identity_difference(const vfio_user::DeviceDescription& before,
                                const vfio_user::DeviceDescription& now);

}  // namespace outboard::devices
