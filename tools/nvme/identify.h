// The data of Identify (§5.15), built fresh for each command.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "tools/nvme/namespaces.h"
#include "tools/nvme/spec.h"

namespace outboard::nvme {

using IdentifyData = std::array<std::byte, kIdentifySize>;

// What a controller is; fixed for its life.
struct Identity {
  std::string serial = "OB0000000000000000";  // at most 20 ASCII characters
  std::string model = "outboard NVMe";        // at most 40
  std::string firmware;                       // at most 8
  u16 vendor = 0;
  u16 subsystem_vendor = 0;
  u8 mdts_shift = 8;  // largest transfer, 4 KiB << n
  u8 error_entries = 64;
  bool doorbell_buffer = false;  // Doorbell Buffer Config is offered
  u8 async_events = 4;           // outstanding Asynchronous Event Requests
};

inline constexpr u16 kControllerId = 0;
inline constexpr u32 kFormats = 2;                // index 0: 512-byte blocks, 1: 4096
inline constexpr u16 kTemperature = 298;          // kelvin: there is no sensor
inline constexpr u16 kWarningTemperature = 343;   // WCTEMP
inline constexpr u16 kCriticalTemperature = 353;  // CCTEMP

// Fills `data` for the CNS, NSID and dword 11 of the command, or says why not.
Status identify(const Command& command, const Identity& identity,
                std::span<const Namespace> namespaces, IdentifyData& data);

}  // namespace outboard::nvme
