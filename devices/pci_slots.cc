#include "devices/pci_slots.h"

namespace outboard::devices {
namespace {

constexpr std::uint32_t kConfigSize = 4096;

PciFunction* find(const PciSlots& slots, std::uint32_t device, std::uint32_t function,
                  std::uint32_t reg, std::uint32_t size) {
  if (size != 1 && size != 2 && size != 4) return nullptr;
  if (device >= slots.size() || function != 0 || reg >= kConfigSize || reg % size != 0) {
    return nullptr;
  }
  return slots[device];
}

constexpr std::uint32_t all_ones(std::uint32_t size) {
  return size >= 4 ? 0xffffffff : (1U << (8 * size)) - 1;
}

}  // namespace

std::uint32_t bus0_read(const PciSlots& slots, std::uint32_t device, std::uint32_t function,
                        std::uint32_t reg, std::uint32_t size) {
  PciFunction* const target = find(slots, device, function, reg, size);
  return target == nullptr ? all_ones(size) : target->config_read(reg, size) & all_ones(size);
}

void bus0_write(const PciSlots& slots, std::uint32_t device, std::uint32_t function,
                std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
  PciFunction* const target = find(slots, device, function, reg, size);
  if (target != nullptr) target->config_write(reg, size, value & all_ones(size));
}

}  // namespace outboard::devices
