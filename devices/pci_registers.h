// PCI configuration registers and capability structures, as in PCI Local Bus 3.0 and PCI Express
// Base 4.0. Offsets and widths in bytes.
#pragma once

#include <cstdint>

namespace outboard::devices::pci {

// Type 0 header, PCI 3.0 §6.1
inline constexpr std::uint32_t kVendorId = 0x00;           // 2
inline constexpr std::uint32_t kDeviceId = 0x02;           // 2
inline constexpr std::uint32_t kCommand = 0x04;            // 2  §6.2.2
inline constexpr std::uint32_t kStatus = 0x06;             // 2  §6.2.3
inline constexpr std::uint32_t kRevisionId = 0x08;         // 1
inline constexpr std::uint32_t kClassCode = 0x09;          // 3  interface, subclass, base class
inline constexpr std::uint32_t kCacheLineSize = 0x0c;      // 1  §6.2.4
inline constexpr std::uint32_t kLatencyTimer = 0x0d;       // 1
inline constexpr std::uint32_t kHeaderType = 0x0e;         // 1
inline constexpr std::uint32_t kBist = 0x0f;               // 1
inline constexpr std::uint32_t kBar0 = 0x10;               // 4  §6.2.5.1, six of them
inline constexpr std::uint32_t kCardbusCis = 0x28;         // 4
inline constexpr std::uint32_t kSubsystemVendorId = 0x2c;  // 2
inline constexpr std::uint32_t kSubsystemId = 0x2e;        // 2
inline constexpr std::uint32_t kRomBar = 0x30;             // 4  §6.2.5.2
inline constexpr std::uint32_t kCapabilities = 0x34;       // 1  §6.7
inline constexpr std::uint32_t kInterruptLine = 0x3c;      // 1
inline constexpr std::uint32_t kInterruptPin = 0x3d;       // 1  1 = INTA
inline constexpr std::uint32_t kHeaderEnd = 0x40;

// COMMAND, PCI 3.0 §6.2.2
namespace command {
inline constexpr std::uint16_t kIo = 0x0001;           // respond to I/O space accesses
inline constexpr std::uint16_t kMemory = 0x0002;       // respond to memory space accesses
inline constexpr std::uint16_t kMaster = 0x0004;       // act as bus master
inline constexpr std::uint16_t kInvalidate = 0x0010;   // memory write and invalidate
inline constexpr std::uint16_t kVgaSnoop = 0x0020;     // VGA palette snoop
inline constexpr std::uint16_t kParity = 0x0040;       // parity error response
inline constexpr std::uint16_t kSerr = 0x0100;         // SERR# enable
inline constexpr std::uint16_t kIntxDisable = 0x0400;  // INTx assertion off
inline constexpr std::uint16_t kDecode = kIo | kMemory;
// The bits every server takes; some refuse a write that has another one.
inline constexpr std::uint16_t kForwarded =
    kIo | kMemory | kMaster | kInvalidate | kVgaSnoop | kSerr | kIntxDisable;
}  // namespace command

// STATUS, PCI 3.0 §6.2.3
namespace status {
inline constexpr std::uint16_t kCapabilityList = 0x0010;
inline constexpr std::uint16_t kKept =
    0x06b0;  // capability list, 66 MHz, fast back-to-back, DEVSEL
}  // namespace status

// Base address registers, PCI 3.0 §6.2.5
namespace bar {
inline constexpr std::uint32_t kIo = 0x1;            // bit 0: I/O space
inline constexpr std::uint32_t kTypeMask = 0x6;      // bits 2:1 of a memory BAR
inline constexpr std::uint32_t kType64 = 0x4;        // 64 bits wide
inline constexpr std::uint32_t kPrefetchable = 0x8;  // bit 3 of a memory BAR
inline constexpr std::uint32_t kIoFlags = 0x3;       // read-only bits of an I/O BAR
inline constexpr std::uint32_t kMemoryFlags = 0xf;   // read-only bits of a memory BAR
inline constexpr std::uint32_t kRomEnable = 0x1;     // bit 0 of the ROM BAR
}  // namespace bar

// Capability list entry, PCI 3.0 §6.7: id 1 byte, next 1 byte
namespace capability {
inline constexpr std::uint32_t kNext = 1;
inline constexpr std::uint8_t kPowerManagement = 0x01;
inline constexpr std::uint8_t kVpd = 0x03;
inline constexpr std::uint8_t kMsi = 0x05;
inline constexpr std::uint8_t kPciX = 0x07;
inline constexpr std::uint8_t kVendor = 0x09;
inline constexpr std::uint8_t kExpress = 0x10;
inline constexpr std::uint8_t kMsix = 0x11;
inline constexpr std::uint8_t kAdvancedFeatures = 0x13;
inline constexpr std::uint8_t kEnhancedAllocation = 0x14;
}  // namespace capability

// Extended capability header, PCIe 4.0 §7.6.3: id 15:0, version 19:16, next 31:20
namespace extended {
inline constexpr std::uint32_t kFirst = 0x100;
inline constexpr std::uint16_t kAer = 0x0001;
inline constexpr std::uint16_t kSerialNumber = 0x0003;
inline constexpr std::uint16_t kVendor = 0x000b;
inline constexpr std::uint16_t kAts = 0x000f;
inline constexpr std::uint16_t kSriov = 0x0010;
inline constexpr std::uint16_t kMrIov = 0x0011;
inline constexpr std::uint16_t kPageRequest = 0x0013;
inline constexpr std::uint16_t kResizableBar = 0x0015;
inline constexpr std::uint16_t kPasid = 0x001b;
inline constexpr std::uint16_t kDvsec = 0x0023;
inline constexpr std::uint16_t kVfResizableBar = 0x0024;
}  // namespace extended

// Power management capability, PCI PM 1.2 §3.2
namespace pm {
inline constexpr std::uint32_t kControl = 4;  // 2  PMCSR
inline constexpr std::uint32_t kSize = 8;
inline constexpr std::uint16_t kStateMask = 0x0003;  // PowerState, D0 to D3hot
inline constexpr std::uint16_t kNoSoftReset = 0x0008;
}  // namespace pm

// MSI capability, PCI 3.0 §6.8.1
namespace msi {
inline constexpr std::uint32_t kControl = 2;      // 2
inline constexpr std::uint32_t kAddress = 4;      // 4
inline constexpr std::uint32_t kAddressHigh = 8;  // 4, only with k64Bit
inline constexpr std::uint16_t kEnable = 0x0001;
inline constexpr std::uint16_t kCapableMask = 0x000e;  // log2 of the vectors asked for
inline constexpr std::uint16_t kEnabledMask = 0x0070;  // log2 of the vectors granted
inline constexpr std::uint16_t k64Bit = 0x0080;
inline constexpr std::uint16_t kPerVectorMask = 0x0100;
}  // namespace msi

// MSI-X capability and table, PCI 3.0 §6.8.2
namespace msix {
inline constexpr std::uint32_t kControl = 2;  // 2
inline constexpr std::uint32_t kTable = 4;    // 4  offset 31:3, BIR 2:0
inline constexpr std::uint32_t kPba = 8;      // 4  offset 31:3, BIR 2:0
inline constexpr std::uint32_t kSize = 12;
inline constexpr std::uint16_t kSizeMask = 0x07ff;  // table size minus 1
inline constexpr std::uint16_t kFunctionMask = 0x4000;
inline constexpr std::uint16_t kEnable = 0x8000;
inline constexpr std::uint32_t kBirMask = 0x7;
inline constexpr std::uint32_t kEntrySize = 16;      // address 8, data 4, vector control 4
inline constexpr std::uint32_t kVectorMasked = 0x1;  // vector control bit 0
inline constexpr std::uint32_t kMaxVectors = 2048;
}  // namespace msix

// PCI Express capability, PCIe 4.0 §7.5.3
namespace express {
inline constexpr std::uint32_t kFlags = 2;               // 2
inline constexpr std::uint32_t kDeviceCapabilities = 4;  // 4
inline constexpr std::uint32_t kDeviceControl = 8;       // 2
inline constexpr std::uint32_t kDeviceStatus = 10;       // 2
inline constexpr std::uint32_t kLinkControl = 16;        // 2
inline constexpr std::uint32_t kLinkStatus = 18;         // 2
inline constexpr std::uint32_t kDeviceControl2 = 40;     // 2
inline constexpr std::uint32_t kLinkControl2 = 48;       // 2
inline constexpr std::uint32_t kSize = 60;               // version 2
inline constexpr std::uint16_t kFunctionReset = 0x8000;  // Device Control bit 15, reads 0
inline constexpr std::uint16_t kDeviceControlBits = 0x7fff;
inline constexpr std::uint16_t kLinkControlBits = 0x0fcb;  // without link disable and retrain
inline constexpr std::uint32_t kFunctionResetCapable = 0x10000000;
}  // namespace express

}  // namespace outboard::devices::pci
