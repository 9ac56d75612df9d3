// The line of JSON that --stats prints.
#pragma once

#include <optional>
#include <string>

#include "tools/nvme/log_pages.h"
#include "vfio_user/server.h"
#include "vmm/box/box.h"

namespace outboard::nvme {

std::string statistics_json(const Counters& counters, const vfio_user::Server::Counters& connection,
                            const std::optional<box::Report>& sandbox = std::nullopt);

}  // namespace outboard::nvme
