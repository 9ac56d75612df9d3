// Reboots once, whatever the device makes of it.
#include "peer.h"

#define COUNTER 0x6000000UL
#define MAGIC 0x7265626f6f740001UL

int guest_main(void* start_info) {
  (void)start_info;
  if (read64(COUNTER) == MAGIC) {
    put_line("device", read16(config_at(kPeerSlot, 0)));
    passed();
  }
  check_equal(read16(config_at(kPeerSlot, 0)), 0x1b36, "the device");
  write64(COUNTER, MAGIC);
  outb(kResetPort, 1);
  for (;;) __asm__ volatile("cli; hlt");
}
