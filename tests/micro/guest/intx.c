// INTA of slot 1, level-triggered on GSI 16: while the device holds it, every EOI brings it again;
// when it lets go, it is over. One interrupt more may come after that: a host that signals the
// resample descriptor at the acknowledge cycle (software KVM does) has the device raise its line
// again before the handler lowers it. Drivers of level-triggered lines expect that.
#include "peer.h"

static volatile uint32_t count, lower_at;
static uint64_t bar0;

static void raised(void) {
  ++count;
  if (count == lower_at) {
    write32(bar0 + kPeerIntx, 0);
    check_equal(read32(bar0 + kPeerIntx), 0, "lowered");
  }
  end_of_interrupt();
}

static void settle(void) {
  interrupts_on();
  for (int i = 0; i < 50000; ++i) relax();
  interrupts_off();
}

// Raises the line, holds it for `times` interrupts, and sees that it is over then.
static void hold(uint32_t times) {
  const uint32_t before = count;
  lower_at = before + times;
  write32(bar0 + kPeerIntx, 1);
  for (int i = 0; i < 3000000 && count < lower_at; ++i) {
    interrupts_on();
    relax();
  }
  interrupts_off();
  check(count >= lower_at, "interrupts while held", count - before);
  settle();
  check(count <= lower_at + 1, "interrupts after it was lowered", count - before);
  const uint32_t after = count;
  settle();
  check_equal(count, after, "still interrupts");
}

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  on_interrupt(0x60, raised);
  route_gsi(kFirstIntxGsi, 0x60, true);
  peer_command(2);
  bar0 = bar_address(kPeerSlot, 0);
  check_equal(read8(config_at(kPeerSlot, 0x3d)), 1, "interrupt pin");

  hold(1);
  hold(5);
  const uint32_t unmasks = read32(bar0 + kPeerUnmasks);
  check_equal(unmasks, count, "one unmask for each interrupt");

  // Disabled in the command register: nothing comes, and the line comes back with it.
  peer_command(0x402);
  const uint32_t before = count;
  lower_at = before + 1;
  write32(bar0 + kPeerIntx, 1);
  settle();
  check_equal(count, before, "interrupts while disabled");
  peer_command(2);
  for (int i = 0; i < 3000000 && count < lower_at; ++i) {
    interrupts_on();
    relax();
  }
  settle();
  check(count >= lower_at && count <= lower_at + 1, "interrupts after enabling", count - before);
  passed();
}
