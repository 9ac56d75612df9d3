// The test's NVMe controller in slot 1, and as much of a driver as a doorbell buffer needs: one
// polled queue pair.
#pragma once

#include "guest.h"

enum { kNvmeSlot = 1, kAdminEntries = 16, kIoEntries = 16 };
#define ADMIN_SQ 0x1000000UL
#define ADMIN_CQ 0x1001000UL
#define IO_SQ 0x1002000UL
#define IO_CQ 0x1003000UL
#define DOORBELLS 0x1004000UL    // the buffer: what would have been rung
#define EVENT_INDEX 0x1005000UL  // the buffer: when the controller wants to be told
#define DATA 0x1006000UL
#define WRITTEN 0x1010000UL
#define SEEN 0x1020000UL
enum { kPatience = 1000000000 };  // cycles of the time stamp counter: some tenths of a second
enum {
  kCc = 0x14,
  kCsts = 0x1c,
  kAqa = 0x24,
  kAsq = 0x28,
  kAcq = 0x30,
  kSq1Doorbell = 0x1008,
  kCq1Doorbell = 0x100c
};

static uint64_t nvme_bar;
static uint32_t admin_tail, admin_head, admin_phase, io_tail, io_head, io_phase;

static inline void zero_pages(uint64_t from, uint64_t to) {
  for (; from < to; from += 8) write64(from, 0);
}

// Of a guest that expects the worst: all ones are no reason to end, and what to do when the
// controller is no longer enabled (does not return).
static bool nvme_may_lie;
static void (*nvme_forgotten)(void);

// The controller's status; a controller that is gone is the guest's end.
static inline uint32_t nvme_status(void) {
  const uint32_t status = read32(nvme_bar + kCsts);
  if (status == 0xffffffff && !nvme_may_lie) {
    put_string("gone\n");
    power_off();
  }
  return status;
}

// Between looks at its status: a server is asked now and then, not all the time.
static inline void nvme_pause(void) {
  const uint64_t begin = rdtsc();
  while (rdtsc() - begin < kPatience / 64) relax();
}

static inline void nvme_disable(void) {
  write32(nvme_bar + kCc, 0);
  while ((nvme_status() & 1) != 0) nvme_pause();
}

static inline void nvme_enable(void) {
  zero_pages(ADMIN_SQ, DATA);
  admin_tail = admin_head = io_tail = io_head = 0;
  admin_phase = io_phase = 1;
  write32(nvme_bar + kAqa, (kAdminEntries - 1) << 16 | (kAdminEntries - 1));
  write32(nvme_bar + kAsq, (uint32_t)ADMIN_SQ);
  write32(nvme_bar + kAsq + 4, 0);
  write32(nvme_bar + kAcq, (uint32_t)ADMIN_CQ);
  write32(nvme_bar + kAcq + 4, 0);
  write32(nvme_bar + kCc, 6u << 16 | 4u << 20 | 1);
  uint32_t status;
  while (((status = nvme_status()) & 1) == 0 || status == 0xffffffff) nvme_pause();
}

static inline void nvme_find(void) {
  outb(kUart + 2, 0xc7);  // FIFOs on and empty
  outb(kUart + 4, 0x03);  // DTR, RTS
  write16(config_at(kNvmeSlot, 4), 6);
  nvme_bar = bar_address(kNvmeSlot, 0);
}

// Waits for the next completion. Now and then it looks whether the controller is still there.
static inline void await_phase(uint64_t entry, uint32_t phase) {
  uint64_t asked = rdtsc();
  while ((read32(entry + 12) >> 16 & 1) != phase) {
    relax();
    if (rdtsc() - asked < kPatience) continue;
    const uint32_t status = nvme_status();
    if ((status & 1) == 0 && nvme_forgotten != 0) nvme_forgotten();
    asked = rdtsc();
  }
}

// Status 0 or the end of the guest.
static inline void await(uint64_t queue, uint32_t entries, uint32_t* head, uint32_t* phase) {
  const uint64_t entry = queue + 16 * *head;
  await_phase(entry, *phase);
  check_equal(read32(entry + 12) >> 17, 0, "status");
  *head = (*head + 1) % entries;
  if (*head == 0) *phase ^= 1;
}

static inline void admin(uint8_t opcode, uint64_t pointer1, uint64_t pointer2, uint32_t dw10,
                         uint32_t dw11) {
  const uint64_t entry = ADMIN_SQ + 64 * admin_tail;
  zero_pages(entry, entry + 64);
  write32(entry, opcode | (admin_tail + 1) << 16);
  write64(entry + 24, pointer1);
  write64(entry + 32, pointer2);
  write32(entry + 40, dw10);
  write32(entry + 44, dw11);
  admin_tail = (admin_tail + 1) % kAdminEntries;
  write32(nvme_bar + 0x1000, admin_tail);
  await(ADMIN_CQ, kAdminEntries, &admin_head, &admin_phase);
  write32(nvme_bar + 0x1004, admin_head);
}

static inline void create_queues(void) {
  admin(0x05, IO_CQ, 0, (kIoEntries - 1) << 16 | 1, 1);
  admin(0x01, IO_SQ, 0, (kIoEntries - 1) << 16 | 1, 1 << 16 | 1);
}

// One block, at the doorbells, with everything in it checked.
static inline void one_block(uint8_t opcode, uint64_t memory, uint32_t block) {
  const uint64_t entry = IO_SQ + 64 * io_tail;
  zero_pages(entry, entry + 64);
  write32(entry, opcode | (io_tail + 1) << 16);
  write32(entry + 4, 1);
  write64(entry + 24, memory);
  write32(entry + 40, block);
  io_tail = (io_tail + 1) % kIoEntries;
  write32(nvme_bar + kSq1Doorbell, io_tail);
  const uint64_t completion = IO_CQ + 16 * io_head;
  await_phase(completion, io_phase);
  check_equal(read32(completion + 12) & 0xffff, read32(entry) >> 16, "command id");
  await(IO_CQ, kIoEntries, &io_head, &io_phase);
  write32(nvme_bar + kCq1Doorbell, io_head);
}

// Writes a block with a pattern of `round`, reads it back and compares.
static inline void write_and_read(uint64_t round, uint32_t block) {
  for (int i = 0; i < 64; ++i) write64(WRITTEN + 8 * i, round << 8 | i);
  one_block(0x01, WRITTEN, block);
  zero_pages(SEEN, SEEN + 512);
  one_block(0x02, SEEN, block);
  for (int i = 0; i < 64; ++i) check_equal(read64(SEEN + 8 * i), round << 8 | i, "data");
}

// A read of one block into DATA, not yet told.
static inline void put_read(void) {
  const uint64_t entry = IO_SQ + 64 * io_tail;
  zero_pages(entry, entry + 64);
  write32(entry, 0x02 | (io_tail + 1) << 16);
  write32(entry + 4, 1);
  write64(entry + 24, DATA);
  io_tail = (io_tail + 1) % kIoEntries;
}

// NVMe 1.4 B.5: the value goes to the buffer; whether the controller wants to be told. `index` as
// in the doorbell page. The exchange is the fence between the store and the load.
static inline bool tell(uint32_t index, uint32_t value) {
  const uint16_t old = (uint16_t)read32(DOORBELLS + 4 * index);
  uint32_t v = value;
  __asm__ volatile("xchgl %0, (%1)" : "+r"(v) : "r"(DOORBELLS + 4 * index) : "memory");
  const uint16_t event = (uint16_t)read32(EVENT_INDEX + 4 * index);
  return (uint16_t)((uint16_t)value - event - 1) < (uint16_t)((uint16_t)value - old);
}

// Tells the test where the guest is and waits until it has looked.
static inline void mark(const char* name) {
  put_string(name);
  put_string("\n");
  while ((inb(kUart + 5) & 1) == 0) relax();
  (void)inb(kUart);
}
