// The configuration space the server holds. An interface, so that the shadow is tested without a
// server.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/result.h"

namespace outboard::devices {

// Every member is one message and waits for the reply. Naturally aligned, 1, 2 or 4 bytes.
class RemoteConfig {
 public:
  virtual ~RemoteConfig() = default;
  virtual Result<void> read(std::uint32_t reg, std::span<std::byte> data) = 0;
  virtual Result<void> write(std::uint32_t reg, std::span<const std::byte> data) = 0;
};

}  // namespace outboard::devices
