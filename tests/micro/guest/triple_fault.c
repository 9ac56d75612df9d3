// An exception with no IDT at all.
#include "guest.h"

int guest_main(void* start_info) {
  (void)start_info;
  put_string("about to fault\n");
  struct {
    uint16_t limit;
    uint64_t base;
  } __attribute__((packed)) none = {0, 0};
  __asm__ volatile("lidt %0; ud2" ::"m"(none));
  failed("still here", 0);
}
