// MSI-X: vectors delivered through irqfd, per-vector masks with pending bits, the function mask.
#include "peer.h"

static volatile uint32_t counts[kPeerVectors];
static uint64_t bar0, table;

#define HANDLER(n)              \
  static void vector##n(void) { \
    ++counts[n];                \
    end_of_interrupt();         \
  }
HANDLER(0)
HANDLER(1)
HANDLER(2) HANDLER(3)

    static void wait_for(uint32_t n, uint32_t count, const char* what) {
  for (int i = 0; i < 3000000 && counts[n] < count; ++i) {
    interrupts_on();
    relax();
  }
  interrupts_off();
  check_equal(counts[n], count, what);
}

static void ring(uint32_t n) {
  write32(bar0 + kPeerRing, n);
}

static void settle(void) {
  // A trapped read: every write before it has reached the device.
  check_equal(read32(bar0), 0xc0ffee01, "device register");
  interrupts_on();
  for (int i = 0; i < 20000; ++i) relax();
  interrupts_off();
}

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  on_interrupt(0x50, vector0);
  on_interrupt(0x51, vector1);
  on_interrupt(0x52, vector2);
  on_interrupt(0x53, vector3);
  peer_command(6);
  bar0 = bar_address(kPeerSlot, 0);
  table = bar_address(kPeerSlot, 1);
  const uint32_t capability = find_capability(kPeerSlot, 0x11);
  check(capability != 0, "MSI-X capability", 0);
  const uint64_t control = config_at(kPeerSlot, capability + 2);
  check_equal(read16(control) & 0x7ff, kPeerVectors - 1, "table size");

  for (uint32_t i = 0; i < kPeerVectors; ++i) {
    write64(table + 16 * i, 0xfee00000);
    write32(table + 16 * i + 8, 0x50 + i);
    check_equal(read32(table + 16 * i + 12), 1, "masked at first");
  }
  write16(control, 0xc000);  // enabled, function mask
  for (uint32_t i = 0; i < 3; ++i) write32(table + 16 * i + 12, 0);
  write16(control, 0x8000);

  ring(0);
  wait_for(0, 1, "vector 0");
  ring(2);
  wait_for(2, 1, "vector 2");
  for (uint32_t i = 0; i < 100; ++i) {
    ring(1);
    wait_for(1, i + 1, "vector 1, many times");
  }

  // Masked: pending, then delivered once (PCI 3.0 6.8.2.9 and 6.8.3.5).
  ring(3);
  settle();
  check_equal(counts[3], 0, "a masked vector");
  write32(table + 16 * 1 + 12, 1);
  ring(1);
  ring(1);
  settle();
  check_equal(counts[1], 100, "masked later");
  check_equal(read32(table + 0x800) & 2, 2, "pending bit of vector 1");
  write32(table + 16 * 1 + 12, 0);
  wait_for(1, 101, "delivered once after unmasking");
  settle();
  check_equal(counts[1], 101, "not more than once");
  check_equal(read32(table + 0x800) & 2, 0, "pending bit is clear");

  // A message changed while masked goes to the new vector.
  write32(table + 12, 1);
  write32(table + 8, 0x53);
  write32(table + 12, 0);
  ring(0);
  wait_for(3, 1, "vector 0 as 0x53");

  // The function mask holds everything back.
  write16(control, 0xc000);
  ring(2);
  settle();
  check_equal(counts[2], 1, "function mask");
  write16(control, 0x8000);
  wait_for(2, 2, "after the function mask");
  passed();
}
