// Values that replace the server's in the identity the guest reads.
#pragma once

#include <cstdint>
#include <optional>

namespace outboard::devices {

struct IdOverrides {
  std::optional<std::uint16_t> vendor_id;
  std::optional<std::uint16_t> device_id;
  std::optional<std::uint16_t> subsystem_vendor_id;
  std::optional<std::uint16_t> subsystem_id;
  std::optional<std::uint32_t> class_code;  // 24 bits: base class, subclass, interface
  std::optional<std::uint8_t> revision_id;
};

}  // namespace outboard::devices
