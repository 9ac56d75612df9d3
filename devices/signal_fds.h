// Where a device server tells that something is wrong with the device or that it wants it removed
// (the interrupts ERR and REQ): an eventfd each, -1 where there is none.
#pragma once

#include "vfio_user/unique_fd.h"

namespace outboard::devices {

struct SignalFds {
  vfio_user::UniqueFd error;
  vfio_user::UniqueFd removal;
};

}  // namespace outboard::devices
