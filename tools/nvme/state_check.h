// Whether what another process left can be gone on with.
#pragma once

#include <optional>
#include <string>

#include "tools/nvme/saved_state.h"

namespace outboard::nvme {

// Empty when every number in `saved` is in its bounds and they fit each other, as a kill leaves
// them; else what is wrong, a few words. `io_queues` and `vectors` are this controller's. The state
// may have been torn or written by an enemy: nothing else may be read from it before.
std::optional<std::string> damage(const SavedState& saved, u32 namespaces, u16 io_queues,
                                  u16 vectors);

}  // namespace outboard::nvme
