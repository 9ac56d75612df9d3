// The device's server goes away: the guest goes on, and reads all ones from the device.
#include "peer.h"

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  peer_command(6);
  const uint64_t bar0 = bar_address(kPeerSlot, 0);
  const uint64_t table = bar_address(kPeerSlot, 1);
  const uint32_t capability = find_capability(kPeerSlot, 0x11);
  for (uint32_t i = 0; i < kPeerVectors; ++i) {
    write64(table + 16 * i, 0xfee00000);
    write32(table + 16 * i + 8, 0x50 + i);
    write32(table + 16 * i + 12, 0);
  }
  write16(config_at(kPeerSlot, capability + 2), 0x8000);
  check_equal(read32(bar0), 0xc0ffee01, "device register");
  put_string("ready\n");
  while (read32(bar0) == 0xc0ffee01) relax();
  check_equal(read32(bar0), 0xffffffff, "BAR0 of a lost device");
  while (read16(config_at(kPeerSlot, 0)) != 0xffff) relax();
  // What a driver would still do to it.
  write32(bar0 + kPeerScratch, 1);
  write32(table + 12, 1);
  write16(config_at(kPeerSlot, capability + 2), 0);
  peer_command(0);
  check_equal(read32(table), 0xffffffff, "the MSI-X table of a lost device");
  passed();
}
