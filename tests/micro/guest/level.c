// Counts level-triggered interrupts of GSI 16, in memory where the test sees it.
#include "guest.h"

#define COUNTER 0x6000000UL

static void raised(void) {
  write32(COUNTER, read32(COUNTER) + 1);
  (void)read32(0xd8000000);  // an exit to user space between interrupt and EOI
  end_of_interrupt();
}

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  on_interrupt(0x60, raised);
  route_gsi(kFirstIntxGsi, 0x60, true);
  write32(COUNTER + 4, 1);
  for (;;) {
    interrupts_on();
    relax();
  }
}
