// Ignores everything and runs on.
#include "guest.h"

int guest_main(void* start_info) {
  (void)start_info;
  put_string("ready\n");
  for (;;) relax();
}
