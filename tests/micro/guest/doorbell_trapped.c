// A guest that sets no doorbell buffer.
#include "nvme.h"

int guest_main(void* start_info) {
  (void)start_info;
  nvme_find();
  nvme_enable();
  create_queues();
  mark("reset");
  put_read();
  write32(nvme_bar + kSq1Doorbell, io_tail);
  await(IO_CQ, kIoEntries, &io_head, &io_phase);
  mark("trapped");
  passed();
}
