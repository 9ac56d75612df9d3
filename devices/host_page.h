// The host's page: what mappings and memslots are made of. 4 KiB on x86-64; 4 or 16 KiB on arm64.
#pragma once

#include <cstdint>

#include <unistd.h>

namespace outboard::devices {

[[nodiscard]] inline std::uint64_t host_page() {
  static const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return page;
}

}  // namespace outboard::devices
