// The shortest guest: a line on the console, the boot mark, power-off.
#include "guest.h"

int guest_main(void* start_info) {
  check_equal(read32((uint64_t)start_info), 0x336ec578, "hvm_start_info magic");
  put_string("hello, outboard\n");
  outb(kMarkPort, 1);
  passed();
}
