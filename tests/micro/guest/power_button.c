// Waits for the power button, an edge on GSI 5, and powers off.
#include "guest.h"

static volatile uint32_t presses;
static void pressed(void) {
  ++presses;
  end_of_interrupt();
}

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  on_interrupt(0x40, pressed);
  route_gsi(kPowerButtonGsi, 0x40, false);
  put_string("ready\n");
  while (presses == 0) wait_for_interrupt();
  put_line("presses", presses);
  passed();
}
