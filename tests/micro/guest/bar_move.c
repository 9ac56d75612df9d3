// One CPU moves BAR2 between addresses while another reads and writes through a second place: where
// the BAR is, reads give what was written or, in the middle of a move, all ones; never anything
// else.
#include "peer.h"

static volatile uint64_t current;  // where BAR2 is, or 0 while it moves
static volatile uint32_t stop, ready, stopped;
static volatile uint64_t good, missed, wrong;

void ap_main(void) {
  ready = 1;
  while (!stop) {
    const uint64_t at = current;
    if (at == 0) continue;
    const uint32_t value = read32(at + 0x100);
    if (value == 0x600d600d) {
      ++good;
    } else if (value == 0xffffffff) {
      ++missed;
    } else {
      wrong = value;
    }
  }
  stopped = 1;
}

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  peer_command(2);
  const uint64_t home = bar_address(kPeerSlot, 2);
  write32(home + 0x100, 0x600d600d);
  check_equal(read32(home + 0x100), 0x600d600d, "before the moves");
  current = home;
  start_cpu(1);
  while (!ready) relax();
  const uint64_t away = home + 0x10000000;
  for (int i = 0; i < 200; ++i) {
    const uint64_t to = (i & 1) ? home : away + (uint64_t)(i & 6) * 0x10000;
    // Moved with decoding on, half a BAR at a time, under the other CPU's accesses.
    set_bar64(kPeerSlot, 2, to);
    check_equal(read32(to + 0x100), 0x600d600d, "after a move");
    current = to;
    if (to != home) check_equal(read32(home + 0x100), 0xffffffff, "the old place");
  }
  // Decoding off and on again, and a BAR under the ECAM window, which wins.
  set_bar64(kPeerSlot, 2, home);
  current = home;
  for (int i = 0; i < 50; ++i) {
    peer_command(0);
    check_equal(read32(home + 0x100), 0xffffffff, "decoding off");
    peer_command(2);
    check_equal(read32(home + 0x100), 0x600d600d, "decoding on");
  }
  set_bar64(kPeerSlot, 2, ECAM);
  check_equal(read32(config_at(kPeerSlot, 0)), 0x0fed1b36, "ECAM wins over a BAR");
  set_bar64(kPeerSlot, 2, 0x200000);
  const uint64_t code = read64(0x200000);
  check(code != 0 && code != ~0UL, "RAM wins over a BAR", code);
  set_bar64(kPeerSlot, 2, home);
  const uint64_t before = good;
  for (int i = 0; i < 1000000 && good < before + 10; ++i) relax();
  check(good >= before + 10, "the other CPU goes on", good);
  stop = 1;
  while (!stopped) relax();
  check_equal(wrong, 0, "a value that nobody wrote");
  put_line("good", good);
  passed();
}
