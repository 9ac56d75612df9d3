// Shadow doorbells with a server that sleeps before each command: the guest waits until it is asked
// to ring, and rings.
#include "nvme.h"

enum { kCommands = 100 };

int guest_main(void* start_info) {
  (void)start_info;
  nvme_find();
  nvme_enable();
  create_queues();
  admin(0x7c, DOORBELLS, EVENT_INDEX, 0, 0);

  mark("begin");
  for (uint32_t i = 0; i < kCommands; ++i) {
    // EventIdx at the tail: the controller has nothing left to do.
    while (read32(EVENT_INDEX + 8) != io_tail) relax();
    put_read();
    check(tell(2, io_tail), "a controller that sleeps asks to be told", i);
    write32(nvme_bar + kSq1Doorbell, io_tail);
    await(IO_CQ, kIoEntries, &io_head, &io_phase);
    check(!tell(3, io_head), "nothing waits for what the guest has read", i);
  }
  mark("end");
  passed();
}
