// Writes and reads blocks while the controller's server is killed and goes on: the controller stays
// ready, every command completes once, without error, and what was written is read. A byte on the
// console ends it.
#include "nvme.h"

enum { kBlocks = 256, kCq1Doorbell = 0x100c };
#define WRITTEN 0x1010000UL
#define SEEN 0x1020000UL

static void one_block(uint8_t opcode, uint64_t memory, uint32_t block) {
  const uint64_t entry = IO_SQ + 64 * io_tail;
  zero_pages(entry, entry + 64);
  write32(entry, opcode | (io_tail + 1) << 16);
  write32(entry + 4, 1);
  write64(entry + 24, memory);
  write32(entry + 40, block);
  io_tail = (io_tail + 1) % kIoEntries;
  write32(nvme_bar + kSq1Doorbell, io_tail);
  const uint64_t completion = IO_CQ + 16 * io_head;
  while ((read32(completion + 12) >> 16 & 1) != io_phase) relax();
  check_equal(read32(completion + 12) & 0xffff, read32(entry) >> 16, "command id");
  await(IO_CQ, kIoEntries, &io_head, &io_phase);
  write32(nvme_bar + kCq1Doorbell, io_head);
}

int guest_main(void* start_info) {
  (void)start_info;
  nvme_find();
  nvme_enable();
  create_queues();
  uint64_t rounds = 0;
  while ((inb(kUart + 5) & 1) == 0) {
    const uint32_t block = (uint32_t)(rounds * 37 % kBlocks);
    for (int i = 0; i < 64; ++i) write64(WRITTEN + 8 * i, rounds << 8 | i);
    one_block(0x01, WRITTEN, block);
    zero_pages(SEEN, SEEN + 512);
    one_block(0x02, SEEN, block);
    for (int i = 0; i < 64; ++i) check_equal(read64(SEEN + 8 * i), rounds << 8 | i, "data");
    check_equal(read32(nvme_bar + kCsts) & 3, 1, "controller status");
    if (rounds++ % 16 == 0) put_string("ready\n");  // again, for whoever listens late
  }
  put_line("rounds", rounds);
  passed();
}
