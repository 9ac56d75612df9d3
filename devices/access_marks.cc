#include "devices/access_marks.h"

namespace outboard::devices {
namespace {

constexpr std::uint64_t kConfiguration = 0x14;  // CC, NVMe 1.4 §3.1.5: EN is bit 0
constexpr std::uint64_t kStatus = 0x1c;         // CSTS, §3.1.6: RDY is bit 0

// Whether the access has the byte at `reg`, and bit 0 of it is set.
bool bit0(std::uint64_t reg, std::uint64_t offset, std::span<const std::byte> data) {
  return offset <= reg && reg - offset < data.size() &&
         (data[reg - offset] & std::byte{1}) != std::byte{0};
}

}  // namespace

void AccessMarks::wrote(std::uint32_t region, std::uint64_t offset,
                        std::span<const std::byte> data) {
  marks_.stamp(DeviceMark::bar_access);
  if (nvme_ && region == 0 && bit0(kConfiguration, offset, data)) {
    marks_.stamp(DeviceMark::nvme_enabled);
  }
}

void AccessMarks::read(std::uint32_t region, std::uint64_t offset,
                       std::span<const std::byte> data) {
  marks_.stamp(DeviceMark::bar_access);
  if (nvme_ && region == 0 && bit0(kStatus, offset, data)) marks_.stamp(DeviceMark::nvme_ready);
}

}  // namespace outboard::devices
