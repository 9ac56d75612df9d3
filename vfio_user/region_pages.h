// Which pages of a region may be mapped: the checks between a server's offer and our address space.
#pragma once

#include <vector>

#include "vfio_user/codec.h"
#include "vfio_user/device_description.h"
#include "vfio_user/unique_fd.h"

namespace outboard::vfio_user {

// Fills in the mappable areas of `region` from the server's reply and its descriptors, or leaves
// the region trapped and says why in `trapped_because`. Every area must be page aligned, in the
// region, apart from the others, and inside a regular file (a memfd is one) that can be opened the
// way the region is used; anything else is a SIGBUS or a refused mapping later on. There is one
// file for all areas or one an area. Descriptors that are not used are closed.
void judge_pages(Region& region, const RegionInfoReply& info, std::vector<UniqueFd> fds);

}  // namespace outboard::vfio_user
