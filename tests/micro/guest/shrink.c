// Pages of a device that disappear under the guest: it goes on, and sees zeros or all ones there.
#include "peer.h"

int guest_main(void* start_info) {
  (void)start_info;
  peer_command(6);
  const uint64_t bar2 = bar_address(kPeerSlot, 2);
  write32(bar2 + 0x100, 0x600d0001);
  write32(bar2 + 0x8000, 0x600d0002);
  check_equal(read32(bar2 + 0x8000), 0x600d0002, "a shared page");
  put_string("ready\n");
  // The test cuts BAR2's file down to a page.
  uint32_t value;
  while ((value = read32(bar2 + 0x8000)) == 0x600d0002) relax();
  check(value == 0 || value == 0xffffffff, "a page that is gone", value);
  write32(bar2 + 0xc000, 1);
  // The device is declared dead, and every access reads all ones.
  while (read16(config_at(kPeerSlot, 0)) != 0xffff) relax();
  while (read32(bar2 + 0x8000) != 0xffffffff) relax();
  while (read32(bar2 + 0x100) != 0xffffffff) relax();
  passed();
}
