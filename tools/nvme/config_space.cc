#include "tools/nvme/config_space.h"

#include "tools/nvme/bytes.h"
#include "tools/nvme/doorbells.h"

namespace outboard::nvme {
namespace {

// PCI 3.0 §6.1, PCIe 4.0 §7.5.
constexpr std::size_t kCommand = 0x04;
constexpr std::size_t kStatus = 0x06;
constexpr std::size_t kPowerManagement = 0x40;
constexpr std::size_t kMsix = 0x50;
constexpr std::size_t kExpress = 0x60;
constexpr std::size_t kDeviceControl = kExpress + 0x08;

constexpr u16 kCommandBusMaster = 1u << 2;
constexpr u16 kCommandPinDisable = 1u << 10;
constexpr u16 kStatusPin = 1u << 3;
constexpr u16 kStatusCapabilities = 1u << 4;
constexpr u16 kMsixEnable = 1u << 15;
constexpr u16 kFunctionLevelReset = 1u << 15;

}  // namespace

template <class T>
void ConfigSpace::set(std::size_t offset, std::type_identity_t<T> value,
                      std::type_identity_t<T> writable) {
  put<T>(bytes_, offset, value);
  put<T>(writable_, offset, writable);
}

ConfigSpace::ConfigSpace(u16 vectors) {
  set<u16>(0x00, kPciVendor);
  set<u16>(0x02, kPciDevice);
  set<u16>(kCommand, 0, 0x0547);  // I/O, memory, master, parity, SERR#, INTx disable
  set<u16>(kStatus, kStatusCapabilities);
  set<u8>(0x08, 1);                                         // revision
  set<u8>(0x09, 0x02);                                      // NVM Express
  set<u8>(0x0a, 0x08);                                      // non-volatile memory
  set<u8>(0x0b, 0x01);                                      // mass storage
  set<u8>(0x0c, 0, 0xff);                                   // cache line size
  set<u32>(0x10, 0x4, static_cast<u32>(~(kBar0Size - 1)));  // BAR0: memory, 64 bits
  set<u32>(0x14, 0, 0xffff'ffff);
  set<u32>(0x20, 0, static_cast<u32>(~(kMsixBarSize - 1)));  // BAR4: memory, 32 bits
  set<u16>(0x2c, kPciVendor);                                // subsystem
  set<u16>(0x2e, kPciDevice);
  set<u8>(0x34, kPowerManagement);
  set<u8>(0x3c, 0, 0xff);  // interrupt line
  set<u8>(0x3d, 1);        // INTA#

  set<u8>(kPowerManagement, 0x01);
  set<u8>(kPowerManagement + 1, kMsix);
  set<u16>(kPowerManagement + 2, 0x0003);           // version 1.2, D0 and D3hot
  set<u16>(kPowerManagement + 4, 1u << 3, 0x0003);  // no soft reset; the power state

  set<u8>(kMsix, 0x11);
  set<u8>(kMsix + 1, kExpress);
  set<u16>(kMsix + 2, static_cast<u16>(vectors - 1), kMsixEnable | 1u << 14);
  set<u32>(kMsix + 4, kMsixTableOffset | kMsixTableBar);
  set<u32>(kMsix + 8, kMsixPbaOffset | kMsixTableBar);

  set<u8>(kExpress, 0x10);
  set<u8>(kExpress + 1, 0);
  set<u16>(kExpress + 2, 0x0002);                  // version 2, endpoint
  set<u32>(kExpress + 0x04, 1u << 28 | 1u << 15);  // function-level reset, role-based errors
  set<u16>(kDeviceControl, 0x2810, 0x7fff);
  set<u32>(kExpress + 0x0c, 0x0000'0041);  // link: 2.5 GT/s, x4
  set<u16>(kExpress + 0x10, 0, 0x01c3);    // link control
  set<u16>(kExpress + 0x12, 0x0041);       // link status
  set<u32>(kExpress + 0x24, 0x1f);         // completion time-outs can be disabled
  set<u16>(kExpress + 0x28, 0, 0x001f);
  set<u16>(kExpress + 0x30, 0x0001, 0x000f);  // link control 2
  defaults_ = bytes_;
}

void ConfigSpace::read(u64 offset, std::span<std::byte> data) const {
  std::memcpy(data.data(), bytes_.data() + offset, data.size());
}

bool ConfigSpace::write(u64 offset, std::span<const std::byte> data) {
  bool reset = false;
  for (std::size_t i = 0; i < data.size(); ++i) {
    const std::size_t at = offset + i;
    const std::byte mask = writable_[at];
    bytes_[at] = (bytes_[at] & ~mask) | (data[i] & mask);
    // The reset bit reads as zero, so it is in no mask.
    if (at == kDeviceControl + 1 &&
        (data[i] & std::byte{kFunctionLevelReset >> 8}) != std::byte{0}) {
      reset = true;
    }
  }
  return reset;
}

void ConfigSpace::reset() {
  bytes_ = defaults_;
}

void ConfigSpace::save(std::span<std::byte> into) const {
  std::copy_n(bytes_.begin(), into.size(), into.begin());
}

void ConfigSpace::restore(std::span<const std::byte> from) {
  for (std::size_t at = 0; at < from.size(); ++at) {
    bytes_[at] = (defaults_[at] & ~writable_[at]) | (from[at] & writable_[at]);
  }
  put<u16>(bytes_, kCommand, get<u16>(bytes_, kCommand) & ~kCommandBusMaster);
}

bool ConfigSpace::bus_master() const {
  return (get<u16>(bytes_, kCommand) & kCommandBusMaster) != 0;
}

bool ConfigSpace::msix_enabled() const {
  return (get<u16>(bytes_, kMsix + 2) & kMsixEnable) != 0;
}

bool ConfigSpace::pin_disabled() const {
  return (get<u16>(bytes_, kCommand) & kCommandPinDisable) != 0;
}

void ConfigSpace::show_pin(bool asserted) {
  const u16 status = get<u16>(bytes_, kStatus);
  put<u16>(bytes_, kStatus,
           static_cast<u16>(asserted ? status | kStatusPin : status & ~kStatusPin));
}

}  // namespace outboard::nvme
