// Writes and reads blocks while the controller's server is killed and goes on: the controller stays
// ready, every command completes once, without error, and what was written is read. Each completed
// read is a dot on the console; a byte there ends it.
#include "nvme.h"

enum { kBlocks = 256, kReads = 16 };

int guest_main(void* start_info) {
  (void)start_info;
  nvme_find();
  nvme_enable();
  create_queues();
  uint64_t rounds = 0;
  while ((inb(kUart + 5) & 1) == 0) {
    write_and_read(rounds, (uint32_t)(rounds * 37 % kBlocks));
    for (int i = 0; i < kReads; ++i) {  // quick ones
      one_block(0x02, SEEN, (uint32_t)i);
      outb(kUart, '.');
    }
    check_equal(nvme_status() & 3, 1, "controller status");
    if (rounds++ % 16 == 0) put_string("ready\n");  // again, for whoever listens late
  }
  put_line("rounds", rounds);
  passed();
}
