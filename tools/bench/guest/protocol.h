// What the bench and its guest say to each other. C and C++: the guest is freestanding C.
//
// The guest asks for an order by reading a register (kNextRegister), which is answered when there
// is one: while it waits it costs no CPU time. Order and results are in a page that both see, so
// that giving them costs nothing while something is measured. The bench writes the order before it
// answers the read; the guest writes the results before it reads again.
#pragma once

#ifdef __cplusplus
#include <cstdint>
namespace outboard::bench {
#else
#include <stdint.h>
#endif

enum {
  // PCI functions of the bench; the class of all of them is 0xff ("unassigned").
  kBenchVendor = 0x1b36,
  kBoardDevice = 0x0bb0,   // the order register, the bell, and the shared pages in BAR2
  kTargetDevice = 0x0bb1,  // trapped registers and nothing else, so that writes may be posted

  // The board's BAR0.
  kNextRegister = 0x00,  // 4 bytes: 1 an order is there, 0 end
  kBellRegister = 0x40,  // a store of 4 bytes signals an eventfd
  // The target's BAR0.
  kReadRegister = 0x00,
  kWriteRegister = 0x08,

  // The board's BAR2, and what stands for it in a bare machine.
  kSharedSize = 0x10000,
  kTicksOffset = 0x1000,  // uint32_t, one a sample
  kMaxSamples = 0x2000,
  kScratchOffset = 0xf000,  // the page whose stores are measured

  // A bare machine: no PCI. EBX points at no PVH start info then, but at this word.
  kBareMagic = 0x65726162,
  kBareMemory = 0x800000,    // bytes of guest RAM
  kBareShared = 0x600000,    // in it
  kBareBoard = 0x40000000,   // not RAM
  kBareTarget = 0x40001000,  // not RAM
};

// One order: `samples` times `inner` operations, each sample timed by itself.
enum Operation {
  kTrappedRead = 1,  // a register of the target
  kPostedWrite,      // a register of the target
  kBell,             // what the store costs the guest
  kBellToWake,       // until the awake server's count is seen in the shared page
  kMappedStore,      // the shared page
  kMemoryStore,      // the guest's own memory
  kNvmeOpen,         // `slot`, `flags`: enable, one pair of queues, a block written and read back
  kNvmeRead,         // 4 KiB at random places; `depth` at a time, `inner` reads a sample
  kNvmeClose,
};

enum { kWantShadow = 1 };  // flags: use a doorbell buffer; the order fails when there is none

struct Shared {
  // the order
  uint32_t operation;
  uint32_t samples;
  uint32_t inner;
  uint32_t slot;
  uint32_t flags;
  uint32_t depth;
  uint64_t gap;  // ticks between samples, not measured

  // the results
  uint64_t end;       // time stamp counter when the order was done
  uint32_t failed;    // 0: done
  uint32_t detail;    // of the failure
  char reason[48];    // of the failure
  uint64_t accesses;  // of device registers that no measurement asked for, so far (trapped)
  uint64_t rings;     // NVMe doorbells written while reading, so far
  uint64_t blocks;    // NVMe: size of the disk in units of 4 KiB

  // the server's, on a cache line of its own
  uint32_t wakes __attribute__((aligned(64)));  // times the bell's reader woke up
};

#ifdef __cplusplus
static_assert(sizeof(Shared) <= kTicksOffset);
static_assert(kTicksOffset + 4 * kMaxSamples <= kScratchOffset);
}  // namespace outboard::bench
#endif
