#pragma once

// Whose process is behind a device's socket (`device.server_uid`): SO_PEERCRED of unix(7), which is
// who called listen(2), or who made the pair of a socket that outboard is given connected.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "vfio_user/result.h"
#include "vmm/machine_config.h"

namespace outboard::vmm {

// "self", "any", a name of /etc/passwd, or a number; none: it is nobody.
[[nodiscard]] std::optional<ServerUser> parse_server_user(std::string_view text);

// "root or the user outboard runs as (1000)", ...
[[nodiscard]] std::string server_user_text(const ServerUser& user);

// Errors (EPERM): the socket's other end is somebody else's.
[[nodiscard]] vfio_user::Result<void> check_server_user(int socket, const ServerUser& allowed);

}  // namespace outboard::vmm
