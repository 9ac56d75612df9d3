#pragma once

// The vfio-user wire format: header, commands and payload structures, in host byte order, laid out
// as in the protocol's text ("vfio-user Protocol Specification", versions 0.0 to 0.2). Every
// structure is free of padding, so it is copied to and from messages with memcpy. Offsets are
// counted from the first byte of the payload, that is from byte 16 of the message.

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace outboard::vfio_user::wire {

// The tables keep their columns.
// clang-format off

inline constexpr std::uint16_t kVersionMajor = 0;
inline constexpr std::uint16_t kVersionMinor = 2;

enum class Command : std::uint16_t {
  version                  = 1,   // client to server, first message; capabilities as JSON
  dma_map                  = 2,   // client to server; 0 or 1 fd
  dma_unmap                = 3,   // client to server
  device_get_info          = 4,   // client to server
  device_get_region_info   = 5,   // client to server; reply carries fds
  device_get_region_io_fds = 6,   // client to server; reply carries fds
  device_get_irq_info      = 7,   // client to server
  device_set_irqs          = 8,   // client to server; request carries fds
  region_read              = 9,   // client to server
  region_write             = 10,  // client to server; may be posted
  dma_read                 = 11,  // server to client
  dma_write                = 12,  // server to client
  device_reset             = 13,  // client to server; header only
  dirty_pages              = 14,  // removed from the protocol; the gap stays
  region_write_multi       = 15,  // client to server; only after the capability write_multiple
  device_feature           = 16,  // client to server
  mig_data_read            = 17,  // client to server
  mig_data_write           = 18,  // client to server
};
inline constexpr std::size_t kCommandLimit = 19;  // one more than the largest command

/// The name as the protocol's text writes it, or "unknown command".
constexpr const char* name_of(Command command) {
  switch (command) {
    case Command::version:                  return "VERSION";
    case Command::dma_map:                  return "DMA_MAP";
    case Command::dma_unmap:                return "DMA_UNMAP";
    case Command::device_get_info:          return "DEVICE_GET_INFO";
    case Command::device_get_region_info:   return "DEVICE_GET_REGION_INFO";
    case Command::device_get_region_io_fds: return "DEVICE_GET_REGION_IO_FDS";
    case Command::device_get_irq_info:      return "DEVICE_GET_IRQ_INFO";
    case Command::device_set_irqs:          return "DEVICE_SET_IRQS";
    case Command::region_read:              return "REGION_READ";
    case Command::region_write:             return "REGION_WRITE";
    case Command::dma_read:                 return "DMA_READ";
    case Command::dma_write:                return "DMA_WRITE";
    case Command::device_reset:             return "DEVICE_RESET";
    case Command::dirty_pages:              return "DIRTY_PAGES";
    case Command::region_write_multi:       return "REGION_WRITE_MULTI";
    case Command::device_feature:           return "DEVICE_FEATURE";
    case Command::mig_data_read:            return "MIG_DATA_READ";
    case Command::mig_data_write:           return "MIG_DATA_WRITE";
  }
  return "unknown command";
}

// Header flags.
inline constexpr std::uint32_t kTypeMask    = 0xf;      // bits 0-3: the type of the message
inline constexpr std::uint32_t kTypeCommand = 0x0;
inline constexpr std::uint32_t kTypeReply   = 0x1;
inline constexpr std::uint32_t kNoReply     = 1u << 4;  // the sender wants no answer, not even an error
inline constexpr std::uint32_t kError       = 1u << 5;  // `error` holds an errno (which may be 0)

struct Header {
  std::uint16_t id;       // echoed in the reply; each direction has ids of its own
  std::uint16_t command;  // Command
  std::uint32_t size;     // of the whole message, this header included
  std::uint32_t flags;
  std::uint32_t error;
};
static_assert(sizeof(Header) == 16 && offsetof(Header, command) == 2 && offsetof(Header, size) == 4 &&
              offsetof(Header, flags) == 8 && offsetof(Header, error) == 12);

struct Version {
  std::uint16_t major;
  std::uint16_t minor;  // JSON text and its NUL follow, or nothing
};
static_assert(sizeof(Version) == 4 && offsetof(Version, minor) == 2);

// DMA_MAP flags.
inline constexpr std::uint32_t kDmaReadable = 1u << 0;
inline constexpr std::uint32_t kDmaWritable = 1u << 1;
inline constexpr std::uint32_t kDmaMmap     = 1u << 2;  // newer: access through mmap
inline constexpr std::uint32_t kDmaFileIo   = 1u << 3;  // newer: access through pread and pwrite

struct DmaMap {
  std::uint32_t argsz;
  std::uint32_t flags;
  std::uint64_t offset;  // into the file of the fd
  std::uint64_t address;
  std::uint64_t size;
};
static_assert(sizeof(DmaMap) == 32 && offsetof(DmaMap, flags) == 4 && offsetof(DmaMap, offset) == 8 &&
              offsetof(DmaMap, address) == 16 && offsetof(DmaMap, size) == 24);

// DMA_UNMAP flags.
inline constexpr std::uint32_t kUnmapDirtyBitmap = 1u << 0;  // a DirtyBitmap follows
inline constexpr std::uint32_t kUnmapAll         = 1u << 1;  // address and size are 0

struct DmaUnmap {
  std::uint32_t argsz;
  std::uint32_t flags;
  std::uint64_t address;
  std::uint64_t size;
};
static_assert(sizeof(DmaUnmap) == 24 && offsetof(DmaUnmap, flags) == 4 &&
              offsetof(DmaUnmap, address) == 8 && offsetof(DmaUnmap, size) == 16);

struct DirtyBitmap {
  std::uint64_t page_size;
  std::uint64_t size;  // of the bitmap that follows, in bytes
};
static_assert(sizeof(DirtyBitmap) == 16 && offsetof(DirtyBitmap, size) == 8);

// DEVICE_GET_INFO flags.
inline constexpr std::uint32_t kDeviceResettable = 1u << 0;
inline constexpr std::uint32_t kDevicePci        = 1u << 1;

struct DeviceInfo {
  std::uint32_t argsz;
  std::uint32_t flags;
  std::uint32_t num_regions;
  std::uint32_t num_irqs;
};
static_assert(sizeof(DeviceInfo) == 16 && offsetof(DeviceInfo, flags) == 4 &&
              offsetof(DeviceInfo, num_regions) == 8 && offsetof(DeviceInfo, num_irqs) == 12);

// Region indexes of a PCI device.
inline constexpr std::uint32_t kRegionBar0   = 0;  // to 5
inline constexpr std::uint32_t kRegionRom    = 6;
inline constexpr std::uint32_t kRegionConfig = 7;
inline constexpr std::uint32_t kRegionVga    = 8;
inline constexpr std::uint32_t kPciRegions   = 9;

// DEVICE_GET_REGION_INFO flags.
inline constexpr std::uint32_t kRegionReadable     = 1u << 0;
inline constexpr std::uint32_t kRegionWritable     = 1u << 1;
inline constexpr std::uint32_t kRegionMappable     = 1u << 2;
inline constexpr std::uint32_t kRegionCapabilities = 1u << 3;  // cap_offset is valid

struct RegionInfo {
  std::uint32_t argsz;
  std::uint32_t flags;
  std::uint32_t index;
  std::uint32_t cap_offset;  // from the start of this structure, 0 for none
  std::uint64_t size;
  std::uint64_t offset;  // into the file of the region's fd, for mmap
};
static_assert(sizeof(RegionInfo) == 32 && offsetof(RegionInfo, flags) == 4 &&
              offsetof(RegionInfo, index) == 8 && offsetof(RegionInfo, cap_offset) == 12 &&
              offsetof(RegionInfo, size) == 16 && offsetof(RegionInfo, offset) == 24);

struct CapabilityHeader {
  std::uint16_t id;
  std::uint16_t version;
  std::uint32_t next;  // from the start of the payload, 0 for the last
};
static_assert(sizeof(CapabilityHeader) == 8 && offsetof(CapabilityHeader, version) == 2 &&
              offsetof(CapabilityHeader, next) == 4);

inline constexpr std::uint16_t kCapSparseMmap        = 1;
inline constexpr std::uint16_t kCapSparseMmapVersion = 1;

struct SparseMmap {  // follows a CapabilityHeader; then `count` times a SparseMmapArea
  std::uint32_t count;
  std::uint32_t reserved;
};
static_assert(sizeof(SparseMmap) == 8 && offsetof(SparseMmap, reserved) == 4);

struct SparseMmapArea {
  std::uint64_t offset;  // into the region; in the file at RegionInfo::offset plus this
  std::uint64_t size;
};
static_assert(sizeof(SparseMmapArea) == 16 && offsetof(SparseMmapArea, size) == 8);

struct RegionIoFds {
  std::uint32_t argsz;
  std::uint32_t flags;  // 0
  std::uint32_t index;
  std::uint32_t count;  // 0 in a request; entries that follow in a reply
};
static_assert(sizeof(RegionIoFds) == 16 && offsetof(RegionIoFds, flags) == 4 &&
              offsetof(RegionIoFds, index) == 8 && offsetof(RegionIoFds, count) == 12);

enum class IoFdType : std::uint32_t {
  ioeventfd        = 0,
  ioregionfd       = 1,
  shadow_ioeventfd = 2,  // an ioeventfd and memory for the value written
};

// Flags of an ioeventfd, as in KVM_IOEVENTFD.
inline constexpr std::uint32_t kIoEventFdDatamatch = 1u << 0;
inline constexpr std::uint32_t kIoEventFdPio       = 1u << 1;

struct IoFdEntry {  // of the protocol's text
  std::uint64_t offset;
  std::uint64_t size;
  std::uint32_t fd_index;
  std::uint32_t type;  // IoFdType
  std::uint32_t flags;
  std::uint32_t padding;
  std::uint64_t datamatch;  // or user_data of an ioregionfd
};
static_assert(sizeof(IoFdEntry) == 40 && offsetof(IoFdEntry, size) == 8 &&
              offsetof(IoFdEntry, fd_index) == 16 && offsetof(IoFdEntry, type) == 20 &&
              offsetof(IoFdEntry, flags) == 24 && offsetof(IoFdEntry, datamatch) == 32);

struct WideIoFdEntry {  // of libvfio-user
  std::uint64_t offset;
  std::uint64_t size;
  std::uint32_t fd_index;
  std::uint32_t type;  // IoFdType
  std::uint32_t flags;
  std::uint32_t shadow_fd_index;
  std::uint64_t shadow_offset;  // or user_data of an ioregionfd
  std::uint64_t datamatch;
};
static_assert(sizeof(WideIoFdEntry) == 48 && offsetof(WideIoFdEntry, fd_index) == 16 &&
              offsetof(WideIoFdEntry, type) == 20 && offsetof(WideIoFdEntry, flags) == 24 &&
              offsetof(WideIoFdEntry, shadow_fd_index) == 28 &&
              offsetof(WideIoFdEntry, shadow_offset) == 32 &&
              offsetof(WideIoFdEntry, datamatch) == 40);

// Interrupt indexes of a PCI device.
inline constexpr std::uint32_t kIrqIntx = 0;
inline constexpr std::uint32_t kIrqMsi  = 1;
inline constexpr std::uint32_t kIrqMsix = 2;
inline constexpr std::uint32_t kIrqErr  = 3;  // the device reports an uncorrectable error
inline constexpr std::uint32_t kIrqReq  = 4;  // the device asks to be removed
inline constexpr std::uint32_t kPciIrqs = 5;

// DEVICE_GET_IRQ_INFO flags.
inline constexpr std::uint32_t kIrqEventfd    = 1u << 0;
inline constexpr std::uint32_t kIrqMaskable   = 1u << 1;
inline constexpr std::uint32_t kIrqAutomasked = 1u << 2;  // masked by being raised, until unmasked
inline constexpr std::uint32_t kIrqNoResize   = 1u << 3;

struct IrqInfo {
  std::uint32_t argsz;
  std::uint32_t flags;
  std::uint32_t index;
  std::uint32_t count;
};
static_assert(sizeof(IrqInfo) == 16 && offsetof(IrqInfo, flags) == 4 && offsetof(IrqInfo, index) == 8 &&
              offsetof(IrqInfo, count) == 12);

// DEVICE_SET_IRQS flags: one kind of data and one action.
inline constexpr std::uint32_t kSetIrqsDataNone      = 1u << 0;
inline constexpr std::uint32_t kSetIrqsDataBool      = 1u << 1;
inline constexpr std::uint32_t kSetIrqsDataEventfd   = 1u << 2;
inline constexpr std::uint32_t kSetIrqsActionMask    = 1u << 3;
inline constexpr std::uint32_t kSetIrqsActionUnmask  = 1u << 4;
inline constexpr std::uint32_t kSetIrqsActionTrigger = 1u << 5;
inline constexpr std::uint32_t kSetIrqsDataBits =
    kSetIrqsDataNone | kSetIrqsDataBool | kSetIrqsDataEventfd;
inline constexpr std::uint32_t kSetIrqsActionBits =
    kSetIrqsActionMask | kSetIrqsActionUnmask | kSetIrqsActionTrigger;

struct SetIrqs {
  std::uint32_t argsz;  // counts the bool bytes, not the fds
  std::uint32_t flags;
  std::uint32_t index;
  std::uint32_t start;
  std::uint32_t count;
};
static_assert(sizeof(SetIrqs) == 20 && offsetof(SetIrqs, flags) == 4 && offsetof(SetIrqs, index) == 8 &&
              offsetof(SetIrqs, start) == 12 && offsetof(SetIrqs, count) == 16);

struct RegionAccess {  // REGION_READ and REGION_WRITE; data follows
  std::uint64_t offset;
  std::uint32_t region;
  std::uint32_t count;
};
static_assert(sizeof(RegionAccess) == 16 && offsetof(RegionAccess, region) == 8 &&
              offsetof(RegionAccess, count) == 12);

struct DmaAccess {  // DMA_READ and DMA_WRITE; data follows
  std::uint64_t address;
  std::uint64_t count;
};
static_assert(sizeof(DmaAccess) == 16 && offsetof(DmaAccess, count) == 8);

struct WriteMulti {  // `count` times a WriteMultiEntry follows in the request, nothing in the reply
  std::uint64_t count;
};
static_assert(sizeof(WriteMulti) == 8);

struct WriteMultiEntry {
  std::uint64_t offset;
  std::uint32_t region;
  std::uint32_t count;  // of `data`, 1 to 8
  std::uint8_t data[8];
};
static_assert(sizeof(WriteMultiEntry) == 24 && offsetof(WriteMultiEntry, region) == 8 &&
              offsetof(WriteMultiEntry, count) == 12 && offsetof(WriteMultiEntry, data) == 16);

// DEVICE_FEATURE flags: the feature in the low 16 bits, and what to do with it.
inline constexpr std::uint32_t kFeatureMask  = 0xffff;
inline constexpr std::uint32_t kFeatureGet   = 1u << 16;
inline constexpr std::uint32_t kFeatureSet   = 1u << 17;
inline constexpr std::uint32_t kFeatureProbe = 1u << 18;

inline constexpr std::uint32_t kFeatureMigration        = 1;
inline constexpr std::uint32_t kFeatureMigDeviceState   = 2;
inline constexpr std::uint32_t kFeatureDmaLoggingStart  = 6;
inline constexpr std::uint32_t kFeatureDmaLoggingStop   = 7;
inline constexpr std::uint32_t kFeatureDmaLoggingReport = 8;

struct DeviceFeature {
  std::uint32_t argsz;
  std::uint32_t flags;
};
static_assert(sizeof(DeviceFeature) == 8 && offsetof(DeviceFeature, flags) == 4);

// Bits of the MIGRATION feature.
inline constexpr std::uint64_t kMigrationStopCopy = 1u << 0;
inline constexpr std::uint64_t kMigrationP2p      = 1u << 1;
inline constexpr std::uint64_t kMigrationPreCopy  = 1u << 2;

struct FeatureMigration {
  std::uint64_t flags;
};
static_assert(sizeof(FeatureMigration) == 8);

enum class MigrationState : std::uint32_t {
  error        = 0,
  stop         = 1,
  running      = 2,
  stop_copy    = 3,
  resuming     = 4,
  running_p2p  = 5,
  pre_copy     = 6,
  pre_copy_p2p = 7,
};

struct FeatureMigDeviceState {
  std::uint32_t state;    // MigrationState
  std::uint32_t data_fd;  // unused by vfio-user
};
static_assert(sizeof(FeatureMigDeviceState) == 8 && offsetof(FeatureMigDeviceState, data_fd) == 4);

struct FeatureDmaLoggingStart {  // `num_ranges` times a DmaLoggingRange follows
  std::uint64_t page_size;
  std::uint32_t num_ranges;
  std::uint32_t reserved;
};
static_assert(sizeof(FeatureDmaLoggingStart) == 16 && offsetof(FeatureDmaLoggingStart, num_ranges) == 8 &&
              offsetof(FeatureDmaLoggingStart, reserved) == 12);

struct DmaLoggingRange {
  std::uint64_t iova;
  std::uint64_t length;
};
static_assert(sizeof(DmaLoggingRange) == 16 && offsetof(DmaLoggingRange, length) == 8);

struct FeatureDmaLoggingReport {  // the bitmap follows in the reply
  std::uint64_t iova;
  std::uint64_t length;
  std::uint64_t page_size;
};
static_assert(sizeof(FeatureDmaLoggingReport) == 24 && offsetof(FeatureDmaLoggingReport, length) == 8 &&
              offsetof(FeatureDmaLoggingReport, page_size) == 16);

struct MigData {  // MIG_DATA_READ and MIG_DATA_WRITE; data follows
  std::uint32_t argsz;
  std::uint32_t size;
};
static_assert(sizeof(MigData) == 8 && offsetof(MigData, size) == 4);

/// A structure that may be copied to and from a message byte by byte: no padding, no pointers.
template <class T>
concept Struct = std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T> &&
                 std::has_unique_object_representations_v<T> && std::is_class_v<T>;

// Limits that are no part of the protocol but hold for every peer in the field.
inline constexpr std::size_t kMaxSocketFds = 253;  // the kernel's SCM_MAX_FD: fds in one sendmsg

// clang-format on

}  // namespace outboard::vfio_user::wire
