// What the guest sees of a device's configuration space, decided once from the bytes the server
// gave: what is answered here, what the server is asked each time, which capabilities are fit to be
// shown.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/bar_registers.h"
#include "devices/config_space.h"
#include "devices/id_overrides.h"
#include "devices/msix.h"
#include "devices/result.h"
#include "vfio_user/device_description.h"

namespace outboard::devices {

struct ConfigRequest {
  std::span<const std::byte> config;  // the server's bytes
  std::span<const vfio_user::Region> regions;
  std::span<const vfio_user::Irq> irqs;
  const BarRegisters* bars = nullptr;
  IdOverrides ids;
  bool interrupt_pin = false;  // the machine has a line for this function
  std::uint32_t max_vectors = 2048;
};

struct MsiShape {
  std::uint32_t offset = 0;  // of the capability
  std::uint32_t vectors = 1;
  bool wide = false;  // 64-bit address
  bool maskable = false;

  std::uint32_t data_register() const { return offset + (wide ? 12 : 8); }
  std::uint32_t mask_register() const { return offset + (wide ? 16 : 12); }
  std::uint32_t pending_register() const { return mask_register() + 4; }
};

struct ConfigPlan {
  ConfigSpace shadow{ConfigSpace::kConventional};
  std::vector<bool> at_server;     // by byte: reads and writes go to the server
  std::uint32_t power_offset = 0;  // capability offsets; 0: none
  std::uint32_t express_offset = 0;
  std::uint32_t msix_offset = 0;
  bool function_reset = false;  // FLR is offered
  bool intx = false;            // the function has INTA#
  std::optional<MsiShape> msi;
  std::optional<MsixShape> msix;
  std::vector<std::string> remarks;  // one line a thing that was hidden or mended
};

// Fails with one line when there is no device behind the bytes, or no endpoint.
Result<ConfigPlan> plan_config(const ConfigRequest& request);

}  // namespace outboard::devices
