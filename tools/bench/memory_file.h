#pragma once

// An unnamed file in memory: where a child's standard error goes until somebody wants to read it.

#include <string>

#include "vfio_user/unique_fd.h"

namespace outboard::bench {

[[nodiscard]] vfio_user::UniqueFd memory_file(const char* name);

// Its end, at most 4 KiB, each line indented.
[[nodiscard]] std::string content_of(int fd);

}  // namespace outboard::bench
