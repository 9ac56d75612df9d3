#pragma once

// The machine's counters as text for a person. Pure.

#include <cstdint>
#include <string>

#include "devices/vfio_function.h"
#include "vfio_user/client.h"
#include "vmm/vcpu_set.h"

namespace outboard::vmm {

// "exits: ..." and "device 'disk0': ..." lines, each ended by '\n'.
[[nodiscard]] std::string exit_lines(const ExitCounters& exits);
[[nodiscard]] std::string device_lines(const std::string& name,
                                       const vfio_user::Client::Counters& messages,
                                       const devices::VfioFunctionCounters& accesses);

}  // namespace outboard::vmm
