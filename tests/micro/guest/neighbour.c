// Two devices: the second CPU sits at the one in slot 1, whose server is gone, while the first CPU
// works with the one in slot 2.
#include "peer.h"

enum { kOther = 2 };

void ap_main(void) {
  const uint64_t bar0 = bar_address(kPeerSlot, 0);
  for (;;) check_equal(read32(bar0), 0xc0ffee01, "the device that is gone and waited for");
}

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  peer_command(6);
  write16(config_at(kOther, 4), 6);
  const uint64_t bar0 = bar_address(kOther, 0);
  start_cpu(1);
  put_string("ready\n");
  for (;;) check_equal(read32(bar0), 0xc0ffee01, "the other device");
}
