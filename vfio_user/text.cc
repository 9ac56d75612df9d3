#include "vfio_user/text.h"

#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "vfio_user/wire.h"

namespace outboard::vfio_user {

std::string hex(std::uint64_t value) {
  char text[19];
  std::snprintf(text, sizeof text, "0x%" PRIx64, value);
  return text;
}

std::string errno_text(int code) {
  const char* const name = ::strerrorname_np(code);
  if (name == nullptr) return "errno " + std::to_string(code);
  return std::string(name) + " (" + ::strerrordesc_np(code) + ")";
}

std::string region_text(std::uint32_t index) {
  if (index < wire::kRegionRom) return "BAR" + std::to_string(index);
  if (index == wire::kRegionRom) return "ROM";
  if (index == wire::kRegionConfig) return "config space";
  if (index == wire::kRegionVga) return "VGA";
  return "region " + std::to_string(index);
}

std::string irq_text(std::uint32_t index) {
  static constexpr const char* kNames[] = {"INTx", "MSI", "MSI-X", "ERR", "REQ"};
  if (index < wire::kPciIrqs) return kNames[index];
  return "interrupt " + std::to_string(index);
}

}  // namespace outboard::vfio_user
