// The device's server dies and comes back, again and again: the guest works on, on one CPU or two,
// and never sees anything but the device. A byte on the console ends it.
#include "peer.h"

static volatile uint32_t interrupts;
static volatile bool stop;
static uint64_t bar0;

static void on_vector(void) {
  ++interrupts;
  end_of_interrupt();
}

void ap_main(void) {
  while (!stop) check_equal(read32(bar0), 0xc0ffee01, "device register on the second CPU");
}

static uint32_t cpus(void) {
  uint32_t out[4];
  cpuid(0xb, 1, out);
  return out[1];
}

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  on_interrupt(0x51, on_vector);
  peer_command(6);
  bar0 = bar_address(kPeerSlot, 0);
  const uint64_t table = bar_address(kPeerSlot, 1);
  const uint64_t bar2 = bar_address(kPeerSlot, 2);
  write64(table + 16, 0xfee00000);
  write32(table + 24, 0x51);
  write32(table + 28, 0);
  write16(config_at(kPeerSlot, find_capability(kPeerSlot, 0x11) + 2), 0x8000);
  if (cpus() > 1) start_cpu(1);
  put_string("ready\n");

  uint64_t rounds = 0, taken = 0;
  while ((inb(kUart + 5) & 1) == 0) {
    check_equal(read32(bar0), 0xc0ffee01, "device register");
    check_equal(read16(config_at(kPeerSlot, 0)), 0x1b36, "vendor id");
    check_equal(read32(table + 24), 0x51, "message of the vector");
    write64(bar2 + 0x1008, rounds);
    const uint64_t seen = read64(bar2 + 0x1008);
    check(seen == rounds || seen == 0, "memory of the device", seen);  // 0: a new one
    const uint32_t before = interrupts;
    write32(bar0 + kPeerRing, 1);
    for (int i = 0; i < 20000 && interrupts == before; ++i) {
      interrupts_on();
      relax();
    }
    interrupts_off();
    taken += interrupts != before;
    ++rounds;
  }
  stop = true;
  put_line("rounds", rounds);
  put_line("without interrupt", rounds - taken);
  passed();
}
