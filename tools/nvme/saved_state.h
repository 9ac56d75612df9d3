// What a server leaves behind for its successor: the layout of the state file after its header and
// the doorbell page (state_file.h). Plain data in a shared mapping; the page cache keeps it when
// the process is killed. One thread of one process writes it; who reads what another process left
// checks it first (state_check.h).
//
// The only thing that a kill can do to it is to stop the stores between two instructions, so what
// counts is their order, and that the compiler keeps it: keep_order() stands where it must.
#pragma once

#include <atomic>

#include "tools/nvme/state.h"

namespace outboard::nvme {

// Stores above it are made before stores below it.
inline void keep_order() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

inline constexpr u32 kMaxInFlight = 1024;    // commands, all queues together
inline constexpr u32 kMaxSavedWindows = 64;  // of guest memory
inline constexpr u32 kSavedConfig = 256;     // bytes of the PCI configuration space
inline constexpr u32 kSavedMsix = 0x2000;    // bytes of the MSI-X table's BAR

// A command from the moment it is fetched until its completion entry is counted.
struct alignas(64) InFlight {
  enum Step : u32 {
    free,      // no command
    fetched,   // taken, perhaps begun; it may run again
    answered,  // `status` and `dw0` hold; it does not run again
    posting,   // the same, and its entry goes to (or is at) place `place` of its queue
  };
  Command command;
  u64 order;     // SqState::fetched when it was taken
  u64 sequence;  // order of fetching over all queues
  u64 place;     // CqState::posted when its entry was begun
  u32 step;
  u32 dw0;
  u16 sq;
  u16 status;
};
static_assert(sizeof(InFlight) == 128);

// A piece of guest memory as the client lent it, and the file behind it: another guest's memory is
// another file.
struct SavedWindow {
  u64 address = 0;
  u64 size = 0;
  u64 device = 0;
  u64 inode = 0;
  u64 offset = 0;
  u32 live = 0;
  u32 writable = 0;
};

struct SavedState {
  u64 boot = 0;      // hash of the kernel's boot id; a guest does not outlive that
  u32 attached = 0;  // a client was there that has not been seen to go
  u32 windows_lost =
      0;  // more windows than are kept, or some without a file: nothing to go on with
  ControllerState now;
  // An admin command changes `now` in many stores. While the record named here (index + 1) says
  // fetched, `before` is the truth.
  u32 undo = 0;
  ControllerState before;
  std::array<u8, kMaxNamespaces> block_shift{};  // a format by the guest changes it; 0: as started
  std::array<std::byte, kSavedConfig> config{};
  std::array<std::byte, kSavedMsix> msix{};
  std::array<SavedWindow, kMaxSavedWindows> windows;
  std::array<InFlight, kMaxInFlight> in_flight{};
};
static_assert(std::is_trivially_copyable_v<SavedState>);

}  // namespace outboard::nvme
