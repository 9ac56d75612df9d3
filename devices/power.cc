#include "devices/power.h"

#include <algorithm>
#include <utility>

namespace outboard::devices {
namespace {

constexpr std::uint8_t kSleepEnable = 0x20;  // SLEEP_CONTROL_REG bit 5, SLP_EN
constexpr std::uint8_t kSleepTypeShift = 2;  // SLEEP_CONTROL_REG bits 4:2, SLP_TYP
constexpr std::uint8_t kSleepTypeMask = 0x07;

}  // namespace

PowerBlock::PowerBlock(std::function<void(PowerEvent)> handler) : handler_(std::move(handler)) {}

// Nothing here has state to show: SLP_EN reads 0, and a machine that never slept has not woken.
void PowerBlock::read(std::uint64_t /*offset*/, std::span<std::byte> data) {
  std::ranges::fill(data, std::byte{0});
}

void PowerBlock::write(std::uint64_t offset, std::span<const std::byte> data) {
  for (const std::byte byte : data) {
    const auto value = std::to_integer<std::uint8_t>(byte);
    switch (offset++) {
      case kSleepControl:
        if ((value & kSleepEnable) != 0 &&
            ((value >> kSleepTypeShift) & kSleepTypeMask) == kSleepTypeOff) {
          handler_({PowerEvent::Kind::power_off});
        }
        break;
      case kReset:
        if (value == kResetValue) handler_({PowerEvent::Kind::reset});
        break;
      case kBootMark:
        handler_({PowerEvent::Kind::boot_mark, value});
        break;
      default:
        break;
    }
  }
}

void PowerButton::press() {
  std::lock_guard lock(mutex_);
  line_.set(true);
  line_.set(false);
}

}  // namespace outboard::devices
