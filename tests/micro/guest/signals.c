// The device reports errors and asks for its removal: nothing that a guest would see.
#include "peer.h"

int guest_main(void* start_info) {
  (void)start_info;
  peer_command(6);
  const uint64_t bar0 = bar_address(kPeerSlot, 0);
  for (int i = 0; i < 3; ++i) write32(bar0 + kPeerSignal, 3);
  for (int i = 0; i < 2; ++i) write32(bar0 + kPeerSignal, 4);
  check_equal(read32(bar0), 0xc0ffee01, "device register");
  put_string("ready\n");
  for (;;) relax();
}
