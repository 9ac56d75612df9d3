#pragma once

// What `outboard probe` has to say of a vfio-user server, as text for people (in the manner of
// lspci -vv) and as JSON for programs. Pure: called on the main thread with what the client read.

#include <cstdint>
#include <string>
#include <vector>

#include "vfio_user/capabilities.h"
#include "vfio_user/device_description.h"

namespace outboard::vmm {

// The PCI identity in the configuration space; all ones where the space is too short.
struct PciIdentity {
  std::uint16_t vendor = 0xffff, device = 0xffff, subsystem_vendor = 0xffff, subsystem = 0xffff;
  std::uint32_t class_code = 0xffffff;  // 24 bits
  std::uint8_t revision = 0xff;
};

struct ProbeReport {
  std::string socket;
  const vfio_user::Capabilities& server;
  const vfio_user::DeviceDescription& device;
  // What a PCI driver would stumble over; any makes the server count as broken.
  std::vector<std::string> faults;
};

[[nodiscard]] PciIdentity identity(const vfio_user::DeviceDescription& device);

// Checks what attach() does not: identity, header type, capability list, MSI-X geometry.
[[nodiscard]] std::vector<std::string> find_faults(const vfio_user::DeviceDescription& device);

[[nodiscard]] std::string to_text(const ProbeReport& report);
[[nodiscard]] std::string to_json(const ProbeReport& report);

}  // namespace outboard::vmm
