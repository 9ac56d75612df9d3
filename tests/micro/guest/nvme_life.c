// A whole life with an NVMe controller: start-up, blocks written and read, a reboot, the same again,
// shutdown. The controller's server may die anywhere in it.
#include "nvme.h"

#define COUNTER 0x6000000UL
#define MAGIC 0x6e766d656c696665UL
enum { kShutdown = 1 << 14, kShutdownStatus = 3 << 2, kShutdownDone = 2 << 2 };

int guest_main(void* start_info) {
  (void)start_info;
  const bool rebooted = read64(COUNTER) == MAGIC;
  nvme_find();
  if (!rebooted) put_string("up\n");
  nvme_enable();
  create_queues();
  for (uint32_t i = 0; i < 4; ++i) write_and_read(2 * i + rebooted, i);
  if (!rebooted) {
    put_string("reboot\n");
    write64(COUNTER, MAGIC);
    outb(kResetPort, 1);
    for (;;) __asm__ volatile("cli; hlt");
  }
  put_string("shutdown\n");
  write32(nvme_bar + kCc, 6u << 16 | 4u << 20 | kShutdown | 1);
  while ((nvme_status() & kShutdownStatus) != kShutdownDone) nvme_pause();
  nvme_disable();
  passed();
}
