// The first trapped accesses of a function's BARs, and what they mean on an NVMe controller.
#pragma once

#include <cstdint>
#include <span>

#include "devices/device_marks.h"

namespace outboard::devices {

// Called by any vCPU after the access; `marks` outlives it.
class AccessMarks final {
 public:
  // nvme: region 0 begins with the registers of an NVMe controller (NVMe 1.4 §3.1).
  AccessMarks(DeviceMarks& marks, bool nvme) : marks_(marks), nvme_(nvme) {}

  void wrote(std::uint32_t region, std::uint64_t offset, std::span<const std::byte> data);
  void read(std::uint32_t region, std::uint64_t offset, std::span<const std::byte> data);

 private:
  DeviceMarks& marks_;
  const bool nvme_;
};

}  // namespace outboard::devices
