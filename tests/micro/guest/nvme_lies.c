// Works with an NVMe controller whose server lies: what it says may be all ones at any time, and it
// may have forgotten everything, but data are right. The second CPU reads registers all the time. A
// byte on the console ends it.
#include "nvme.h"

static volatile bool stop;
static uint64_t rounds;

void ap_main(void) {
  while (!stop) {
    (void)read32(nvme_bar + kCsts);
    nvme_pause();
  }
}

// Vectors that the controller may signal; nobody hears them here.
static void use_vectors(void) {
  const uint32_t capability = find_capability(kNvmeSlot, 0x11);
  const uint32_t place = read32(config_at(kNvmeSlot, capability + 4));
  const uint64_t table = bar_address(kNvmeSlot, place & 7) + (place & ~7u);
  for (uint32_t i = 0; i < 2; ++i) {
    write64(table + 16 * i, 0xfee00000);
    write32(table + 16 * i + 8, 0x50 + i);
    write32(table + 16 * i + 12, i);  // the second one is masked
  }
  write16(config_at(kNvmeSlot, capability + 2), 0x8000);
}

static void work(void) {
  nvme_disable();
  nvme_enable();
  create_queues();
  while ((inb(kUart + 5) & 1) == 0) {
    write_and_read(rounds, (uint32_t)(rounds % 64));
    admin(0x06, DATA, 0, 1, 0);  // Identify Controller
    if (rounds++ % 4 == 0) put_string("ready\n");
  }
  stop = true;
  put_line("rounds", rounds);
  passed();
}

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  nvme_find();
  nvme_may_lie = true;
  nvme_forgotten = work;
  use_vectors();
  start_cpu(1);
  work();
  return 0;
}
