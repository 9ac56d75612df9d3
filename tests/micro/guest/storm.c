// A device that signals one vector without an end: the guest takes what comes, and works on.
#include "peer.h"

static volatile uint64_t count;

static void vector1(void) {
  ++count;
  end_of_interrupt();
}

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  on_interrupt(0x51, vector1);
  peer_command(6);
  const uint64_t bar0 = bar_address(kPeerSlot, 0);
  const uint64_t table = bar_address(kPeerSlot, 1);
  const uint32_t capability = find_capability(kPeerSlot, 0x11);
  write64(table + 16, 0xfee00000);
  write32(table + 16 + 8, 0x51);
  write32(table + 16 + 12, 0);
  write16(config_at(kPeerSlot, capability + 2), 0x8000);
  const uint64_t rounds = read64(bar0 + kPeerScratch);
  put_string("ready\n");
  interrupts_on();
  write64(bar0 + kPeerStorm, rounds);
  // Answered when the storm is over; the interrupts come meanwhile.
  check_equal(read32(bar0), 0xc0ffee01, "device register");
  for (int i = 0; i < 20000; ++i) relax();
  interrupts_off();
  check(count >= 1, "interrupts", count);
  check(count <= rounds, "more interrupts than signals", count);
  passed();
}
