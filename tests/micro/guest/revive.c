// Reads and writes registers of an NVMe controller whose server is killed and started anew; a byte
// on the console ends it.
#include "guest.h"

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  write16(config_at(1, 4), 6);
  const uint64_t bar0 = bar_address(1, 0);
  uint64_t rounds = 0;
  while ((inb(kUart + 5) & 1) == 0) {
    check_equal(read32(bar0 + 0x08) >> 16, 1, "NVMe version");
    check_equal(read32(config_at(1, 8)) >> 8, 0x010802, "class code");
    write32(bar0 + 0x24, 0x001f001f);
    const uint32_t queues = read32(bar0 + 0x24);
    check(queues == 0x001f001f || queues == 0, "admin queue attributes", queues);
    if (rounds++ % 256 == 0) put_string("ready\n");  // again, for whoever listens late
  }
  put_line("rounds", rounds);
  passed();
}
