// Stores that the kernel turns into an eventfd: the device is told, and receives no message.
#include "peer.h"

enum { kStores = 1000 };

int guest_main(void* start_info) {
  (void)start_info;
  peer_command(6);
  uint64_t bar0 = bar_address(kPeerSlot, 0);
  const uint64_t before = read64(bar0 + kPeerWrites);
  for (uint32_t i = 0; i < kStores; ++i) write32(bar0 + kPeerBell, i);
  check_equal(read64(bar0 + kPeerBell), kStores, "signals");
  check_equal(read64(bar0 + kPeerWrites), before, "messages for stores to the eventfd");

  // Another width is a message.
  write16(bar0 + kPeerBell, 1);
  check_equal(read64(bar0 + kPeerWrites), before + 1, "a store of another width");

  // The device takes it away, as NVMe does when its controller is reset: the next store is trapped.
  write32(bar0 + kPeerOffer, 0);
  write32(bar0 + kPeerBell, 1);
  check_equal(read64(bar0 + kPeerWrites), before + 3, "a store after the offer was withdrawn");
  check_equal(read64(bar0 + kPeerBell), kStores, "signals after it");
  write32(bar0 + kPeerOffer, 1);
  write32(bar0 + kPeerBell, 1);
  check_equal(read64(bar0 + kPeerBell), kStores + 1, "signals when it is back");

  // It follows the BAR.
  const uint64_t moved = bar0 ^ 0x08000000;
  write32(config_at(kPeerSlot, 0x10), (uint32_t)moved);
  write32(moved + kPeerBell, 1);
  check_equal(read64(moved + kPeerBell), kStores + 2, "signals at the new place");
  write32(bar0 + kPeerBell, 1);
  check_equal(read64(moved + kPeerBell), kStores + 2, "signals at the old place");
  passed();
}
