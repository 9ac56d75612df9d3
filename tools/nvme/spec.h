// What NVM Express 1.4 fixes: layouts, opcodes, status codes and identifiers. Constants only; the
// section of the specification stands beside each table. All integers are little-endian, as is
// every host this program runs on.
#pragma once

#include <cstddef>
#include <cstdint>

namespace outboard::nvme {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

inline constexpr u32 kBroadcastNamespace = 0xffff'ffff;

// §4.2 Submission queue entry.
struct Command {
  u8 opcode;
  u8 flags;  // 1:0 FUSE, 7:6 PSDT
  u16 id;
  u32 nsid;
  u32 dw2, dw3;
  u64 metadata;
  u64 pointer1;  // PRP1, or the first half of SGL1
  u64 pointer2;  // PRP2, or the second half of SGL1
  u32 dw10, dw11, dw12, dw13, dw14, dw15;

  u8 fuse() const { return flags & 3; }
  u8 pointer_type() const { return flags >> 6; }  // 0 PRP, 1 and 2 SGL
};
static_assert(sizeof(Command) == 64 && offsetof(Command, pointer1) == 24 &&
              offsetof(Command, dw10) == 40);

// §4.6 Completion queue entry.
struct Completion {
  u32 dw0;
  u32 dw1;
  u16 sq_head;
  u16 sq_id;
  u16 command_id;
  u16 status;  // 0 phase, 8:1 SC, 11:9 SCT, 14 more, 15 do not retry
};
static_assert(sizeof(Completion) == 16 && offsetof(Completion, status) == 14);

// §4.4 SGL descriptor.
struct SglDescriptor {
  u64 address;
  u32 length;
  u8 reserved[3];
  u8 type;  // 7:4 type, 3:0 sub type
};
static_assert(sizeof(SglDescriptor) == 16);

enum class SglType : u8 { data_block = 0, bit_bucket = 1, segment = 2, last_segment = 3 };

// §6.7 Dataset management range.
struct DatasetRange {
  u32 attributes;
  u32 blocks;
  u64 start;
};
static_assert(sizeof(DatasetRange) == 16);

// §3.1 Controller registers, offsets in BAR0.
namespace reg {
inline constexpr u64 cap = 0x00;          // capabilities
inline constexpr u64 version = 0x08;      // VS
inline constexpr u64 intms = 0x0c;        // interrupt mask set
inline constexpr u64 intmc = 0x10;        // interrupt mask clear
inline constexpr u64 cc = 0x14;           // controller configuration
inline constexpr u64 csts = 0x1c;         // controller status
inline constexpr u64 nssr = 0x20;         // NVM subsystem reset
inline constexpr u64 aqa = 0x24;          // admin queue attributes
inline constexpr u64 asq = 0x28;          // admin submission queue base
inline constexpr u64 acq = 0x30;          // admin completion queue base
inline constexpr u64 doorbells = 0x1000;  // §3.1.24, stride 4
}  // namespace reg

inline constexpr u32 kVersion14 = 0x0001'0400;

// §3.1.5 CC and §3.1.6 CSTS.
inline constexpr u32 kCcEnable = 1;
inline constexpr u32 kCstsReady = 1;
inline constexpr u32 kCstsFatal = 2;
inline constexpr u32 kCstsShutdownMask = 3u << 2;
inline constexpr u32 kCstsShutdownOccurring = 1u << 2;
inline constexpr u32 kCstsShutdownComplete = 2u << 2;

// §5 Figure "Opcodes for Admin Commands".
enum class AdminOpcode : u8 {
  delete_io_sq = 0x00,
  create_io_sq = 0x01,
  get_log_page = 0x02,
  delete_io_cq = 0x04,
  create_io_cq = 0x05,
  identify = 0x06,
  abort = 0x08,
  set_features = 0x09,
  get_features = 0x0a,
  async_event_request = 0x0c,
  doorbell_buffer_config = 0x7c,
  format_nvm = 0x80,
};

// §6 Figure "Opcodes for NVM Commands".
enum class IoOpcode : u8 {
  flush = 0x00,
  write = 0x01,
  read = 0x02,
  compare = 0x05,
  write_zeroes = 0x08,
  dataset_management = 0x09,
};

// §4.6.1 Status: SCT << 8 | SC.
enum class Status : u16 {
  success = 0x000,
  invalid_opcode = 0x001,
  invalid_field = 0x002,
  command_id_conflict = 0x003,
  data_transfer_error = 0x004,
  internal_error = 0x006,
  abort_requested = 0x007,
  sq_deleted = 0x008,
  invalid_namespace = 0x00b,
  command_sequence_error = 0x00c,
  invalid_sgl_segment = 0x00d,
  invalid_sgl_count = 0x00e,
  data_sgl_length_invalid = 0x00f,
  sgl_type_invalid = 0x011,
  prp_offset_invalid = 0x013,
  namespace_write_protected = 0x020,
  lba_out_of_range = 0x080,
  capacity_exceeded = 0x081,
  format_in_progress = 0x084,
  completion_queue_invalid = 0x100,
  invalid_queue_identifier = 0x101,
  invalid_queue_size = 0x102,
  async_event_limit_exceeded = 0x105,
  invalid_interrupt_vector = 0x108,
  invalid_log_page = 0x109,
  invalid_format = 0x10a,
  invalid_queue_deletion = 0x10c,
  feature_not_saveable = 0x10d,
  feature_not_changeable = 0x10e,
  feature_not_namespace_specific = 0x10f,
  write_fault = 0x280,
  unrecovered_read = 0x281,
  compare_failure = 0x285,
};

// The host may try again what failed for a reason of the moment; everything else is final.
constexpr bool may_retry(Status status) {
  return status == Status::internal_error || status == Status::abort_requested ||
         status == Status::sq_deleted || status == Status::format_in_progress;
}

// §5.15.1 CNS. 05h and 06h are of later versions; Linux asks them of every controller.
enum class Cns : u8 {
  namespace_data = 0x00,
  controller = 0x01,
  active_namespaces = 0x02,
  namespace_descriptors = 0x03,
  command_set_namespace = 0x05,
  command_set_controller = 0x06,
  allocated_namespaces = 0x10,
  allocated_namespace = 0x11,
  controllers_of_namespace = 0x12,
  controllers = 0x13,
};
inline constexpr std::size_t kIdentifySize = 4096;

// §5.21.1 Features.
enum class FeatureId : u8 {
  arbitration = 0x01,
  power_management = 0x02,
  temperature_threshold = 0x04,
  error_recovery = 0x05,
  write_cache = 0x06,
  number_of_queues = 0x07,
  interrupt_coalescing = 0x08,
  interrupt_vector = 0x09,
  write_atomicity = 0x0a,
  async_events = 0x0b,
  timestamp = 0x0e,
};

// §5.14.1 Log pages.
enum class LogId : u8 { error = 0x01, smart = 0x02, firmware = 0x03, effects = 0x05 };

// §5.2 Asynchronous events: what a completion's dword 0 carries.
enum class EventType : u8 { error = 0, smart = 1, notice = 2 };
inline constexpr u8 kEventInvalidDoorbell = 0x00;
inline constexpr u8 kEventInvalidDoorbellValue = 0x01;
inline constexpr u8 kEventReliability = 0x00;
inline constexpr u8 kEventTemperature = 0x01;

}  // namespace outboard::nvme
