#pragma once

// What a machine has counted so far. Plain data; each figure on its own is right, those of one
// moment need not fit each other exactly.

#include <cstdint>
#include <string>
#include <vector>

#include "devices/vfio_function.h"
#include "vfio_user/client_counters.h"
#include "vmm/exits.h"

namespace outboard::vmm {

struct DeviceCounters {
  std::string name;
  vfio_user::ClientCounters messages;
  devices::VfioFunctionCounters accesses;
  devices::LinkCounters link;
  // From the first message of the connection until the function was ready for the guest: how often
  // the next step had to wait for an answer. Requests sent together count once.
  std::uint64_t attach_round_trips = 0;
  // An NVMe controller that has signalled vector 0 and no other was ever connected: where the guest
  // has done I/O, its completions came by the vector of the admin queue.
  bool completion_shared_vector = false;
};

struct MachineCounters {
  std::vector<ExitCounters> vcpus;
  std::vector<DeviceCounters> devices;  // those that are plugged
  std::uint64_t route_pushes = 0;       // of the interrupt routing table to KVM
  std::uint64_t reboots = 0;
  std::uint64_t console_lost = 0;  // bytes of output
};

}  // namespace outboard::vmm
