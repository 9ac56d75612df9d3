// Echoes what is typed, by interrupt, until a 'q'.
#include "guest.h"

static volatile bool ended;

static void received(void) {
  while (inb(kUart + 5) & 1) {
    const char c = (char)inb(kUart);
    while ((inb(kUart + 5) & 0x20) == 0) relax();
    outb(kUart, (uint8_t)c);
    if (c == 'q') ended = true;
  }
  (void)inb(kUart + 2);
  end_of_interrupt();
}

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  on_interrupt(0x41, received);
  route_gsi(kUartGsi, 0x41, false);
  outb(kUart + 2, 0x01);  // FIFOs on
  outb(kUart + 4, 0x0b);  // DTR, RTS, OUT2
  outb(kUart + 1, 0x01);  // received data
  put_string("ready\n");
  while (!ended) wait_for_interrupt();
  put_string("\n");
  passed();
}
