// Pages of a device that come and go under two CPUs: they go on until the device is declared dead.
#include "peer.h"

static volatile uint64_t bar2;
static volatile uint32_t stop, stopped;

static void touch(uint64_t at) {
  const uint32_t value = read32(at);
  // What was written, or a fresh page, or nothing there.
  check(value == 0 || value == 0xffffffff || value == 0x600d0001, "a page that comes and goes",
        value);
  write32(at, 0x600d0001);
}

void ap_main(void) {
  while (bar2 == 0) relax();
  while (!stop) touch(bar2 + 0x4000);
  stopped = 1;
}

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  peer_command(6);
  const uint64_t at = bar_address(kPeerSlot, 2);
  write32(at + 0x8000, 0x600d0001);
  check_equal(read32(at + 0x8000), 0x600d0001, "a shared page");
  put_string("ready\n");
  start_cpu(1);
  bar2 = at;
  while (read16(config_at(kPeerSlot, 0)) != 0xffff) {
    for (int i = 0; i < 100; ++i) touch(at + 0x8000);
  }
  stop = 1;
  while (!stopped) relax();
  passed();
}
