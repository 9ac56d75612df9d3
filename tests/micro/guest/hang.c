// Reads a register whose answer never comes.
#include "peer.h"

int guest_main(void* start_info) {
  (void)start_info;
  peer_command(6);
  put_line("got", read32(bar_address(kPeerSlot, 0) + kPeerHang));
  for (;;) relax();
}
