// Shadow doorbells: the guest rings only when the controller asks for it. What the test's server
// does in the meantime, spin or sleep, decides how often that is.
#include "nvme.h"

enum { kCommands = 200 };

int guest_main(void* start_info) {
  (void)start_info;
  nvme_find();
  nvme_enable();
  create_queues();
  admin(0x7c, DOORBELLS, EVENT_INDEX, 0, 0);

  mark("begin");
  uint32_t rings = 0;
  for (uint32_t i = 0; i < kCommands; ++i) {
    put_read();
    if (tell(2, io_tail)) {
      ++rings;
      write32(nvme_bar + kSq1Doorbell, io_tail);
    }
    await(IO_CQ, kIoEntries, &io_head, &io_phase);
    if (tell(3, io_head)) write32(nvme_bar + kSq1Doorbell + 4, io_head);
  }
  mark("end");
  put_line("rings", rings);

  // A controller reset drops the buffer, and with it what stood for the doorbell: it is a message.
  nvme_disable();
  nvme_enable();
  create_queues();
  mark("reset");
  put_read();
  write32(nvme_bar + kSq1Doorbell, io_tail);
  await(IO_CQ, kIoEntries, &io_head, &io_phase);
  mark("trapped");
  passed();
}
