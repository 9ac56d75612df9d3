// The line of JSON that --stats prints.
#pragma once

#include <string>

#include "tools/nvme/log_pages.h"
#include "vfio_user/server.h"

namespace outboard::nvme {

std::string statistics_json(const Counters& counters,
                            const vfio_user::Server::Counters& connection);

}  // namespace outboard::nvme
