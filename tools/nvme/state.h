// Everything of a controller that a successor needs to go on where it stopped, beside the commands
// in flight (saved_state.h): plain data, placed by the owner, so that it can lie in memory that
// outlives the process. Written only by the controller's thread. Flags are bytes: what comes out of
// a file may hold any value, which a bool may not.
#pragma once

#include <array>
#include <type_traits>

#include "tools/nvme/spec.h"

namespace outboard::nvme {

inline constexpr u16 kMaxIoQueues = 64;              // pairs
inline constexpr u16 kMaxQueues = kMaxIoQueues + 1;  // with the admin queue, id 0
inline constexpr u32 kMaxQueueEntries = 1024;        // CAP.MQES + 1, I/O queues
inline constexpr u32 kMaxNamespaces = 32;

struct Registers {
  u32 interrupt_mask = 0;
  u32 cc = 0;
  u32 csts = 0;
  u32 aqa = 0;
  u64 asq = 0;
  u64 acq = 0;
};

struct SqState {
  u64 base = 0;     // guest-physical
  u64 fetched = 0;  // commands taken so far; the head is this modulo `entries`
  u32 entries = 0;
  u16 cq = 0;
  u8 live = 0;
  u8 deleting = 0;  // fetches nothing more; gone when its last command is answered
};

struct CqState {
  u64 base = 0;
  u64 posted = 0;  // entries written so far; tail and phase follow from it
  u32 entries = 0;
  u16 head = 0;  // what the host has consumed
  u16 vector = 0;
  u8 interrupts = 0;
  u8 live = 0;
};

// §5.21.1 Current values of the features; the initialisers are the defaults.
struct FeatureValues {
  u32 arbitration = 6;  // burst 64, no weights
  u32 over_temperature = 343;
  u32 under_temperature = 0;
  std::array<u32, kMaxNamespaces> error_recovery{};
  u8 write_cache = 1;
  u16 io_queues = kMaxIoQueues;
  u32 interrupt_coalescing = 0;
  std::array<u8, kMaxQueues> coalescing_off{};
  u32 write_atomicity = 0;
  u32 async_events = 0xff;   // all SMART warnings
  u64 timestamp = 0;         // ms, as set
  u64 timestamp_set_at = 0;  // ms of the monotonic clock
  u8 timestamp_by_host = 0;
};

// §5.7 Doorbell buffer: two pages of guest memory.
struct ShadowState {
  u64 doorbells = 0;
  u64 events = 0;
  u64 bytes = 0;  // of each; 0: not configured
};

struct ControllerState {
  Registers registers;
  std::array<SqState, kMaxQueues> sq;
  std::array<CqState, kMaxQueues> cq;
  FeatureValues features;
  ShadowState shadow;
};
static_assert(std::is_trivially_copyable_v<ControllerState>);

}  // namespace outboard::nvme
