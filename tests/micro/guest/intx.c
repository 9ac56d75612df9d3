// INTA of slot 1, level-triggered on GSI 16: while the device holds it, every EOI brings it again;
// when it lets go, it is over. The device is asked to unmask once per EOI.
#include "peer.h"

static volatile uint32_t count;
static uint64_t bar0;
static uint32_t lower_at;

static void raised(void) {
  ++count;
  if (count == lower_at) {
    write32(bar0 + kPeerIntx, 0);
    check_equal(read32(bar0 + kPeerIntx), 0, "lowered");
  }
  end_of_interrupt();
}

static void run(uint32_t wanted) {
  for (int i = 0; i < 3000000 && count < wanted; ++i) {
    interrupts_on();
    relax();
  }
  for (int i = 0; i < 20000; ++i) relax();
  interrupts_off();
  check_equal(count, wanted, "interrupts");
}

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  on_interrupt(0x60, raised);
  route_gsi(kFirstIntxGsi, 0x60, true);
  peer_command(2);
  bar0 = bar_address(kPeerSlot, 0);
  check_equal(read8(config_at(kPeerSlot, 0x3d)), 1, "interrupt pin");

  lower_at = 1;
  write32(bar0 + kPeerIntx, 1);
  run(1);
  // Held over five EOIs.
  lower_at = 6;
  write32(bar0 + kPeerIntx, 1);
  run(6);
  put_line("unmasks", read32(bar0 + kPeerUnmasks));
  // Disabled in the command register: nothing comes, and the line comes back with it.
  peer_command(0x402);
  lower_at = 7;
  write32(bar0 + kPeerIntx, 1);
  run(6);
  peer_command(2);
  run(7);
  put_line("interrupts", count);
  passed();
}
