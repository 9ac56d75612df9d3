// Config space by ECAM and by CF8/CFC, BAR sizing, accesses of every width, I/O BAR, DMA.
#include "peer.h"

static uint32_t by_ports(uint32_t slot, uint32_t reg) {
  outl(kConfigAddress, 0x80000000U | (slot << 11) | (reg & 0xfc));
  return inl(kConfigData);
}

static uint32_t size_bar(uint32_t bar) {
  const uint64_t at = config_at(kPeerSlot, 0x10 + 4 * bar);
  const uint32_t before = read32(at);
  write32(at, 0xffffffff);
  const uint32_t mask = read32(at);
  write32(at, before);
  check_equal(read32(at), before, "a BAR after sizing");
  return mask;
}

int guest_main(void* start_info) {
  (void)start_info;
  // The bridge, the device, and a place where nothing is.
  check(read16(config_at(0, 0)) != 0xffff, "host bridge", 0);
  check_equal(read32(config_at(kPeerSlot, 0)), 0x0fed1b36, "device id by ECAM");
  check_equal(by_ports(kPeerSlot, 0), 0x0fed1b36, "device id by ports");
  check_equal(inw(kConfigData + 2), 0x0fed, "upper half by ports");
  check_equal(read32(config_at(9, 0)), 0xffffffff, "absent slot");
  check_equal(read32(config_at(kPeerSlot, 0) + 0x1000), 0xffffffff, "absent function");
  check_equal(by_ports(0, 0), read32(config_at(0, 0)), "bridge both ways");

  // Sizes, PCI 3.0 6.2.5.1
  check_equal(size_bar(0), 0xfffff000, "BAR0 size");
  check_equal(size_bar(2), 0xffff000c, "BAR2 size");
  check_equal(size_bar(3), 0xffffffff, "BAR2 upper half");
  check_equal(size_bar(4) & 0xffff, 0xffe1, "BAR4 size");
  check_equal(size_bar(5), 0, "no BAR5");

  // Placed before the guest started; decoding is off until asked for.
  const uint64_t bar0 = bar_address(kPeerSlot, 0);
  const uint64_t bar2 = bar_address(kPeerSlot, 2);
  check(bar0 >= 0xc0000000 && bar0 < 0xe0000000, "BAR0 in the 32-bit window", bar0);
  check(bar2 >= 0x100000000, "BAR2 in the 64-bit window", bar2);
  check_equal(read32(bar0), 0xffffffff, "BAR0 before decoding");
  peer_command(7);
  check_equal(read32(bar0 + kPeerId), 0xc0ffee01, "device register");
  write64(bar0 + kPeerScratch, 0x0123456789abcdef);
  check_equal(read64(bar0 + kPeerScratch), 0x0123456789abcdef, "8 bytes");

  // Every width, in both directions, in BAR2.
  for (uint32_t i = 0; i < 8; ++i) write8(bar2 + i, (uint8_t)(0x11 * (i + 1)));
  check_equal(read64(bar2), 0x8877665544332211, "bytes as one word");
  write16(bar2 + 2, 0xaabb);
  write32(bar2 + 4, 0xccddeeff);
  check_equal(read64(bar2), 0xccddeeffaabb2211, "mixed widths");
  check_equal(read16(bar2 + 1), 0xbb22, "unaligned");
  write32(bar2 + 0xfffc, 7);
  check_equal(read32(bar2 + 0xfffc), 7, "the last word of BAR2");

  // Ports
  const uint16_t port = (uint16_t)bar_address(kPeerSlot, 4);
  outl(port + 8, 0x13579bdf);
  check_equal(inb(port + 9), 0x9b, "I/O BAR");
  peer_command(6);
  check_equal(inb(port + 9), 0xff, "I/O decoding off");

  // Across the edges of BAR2's second page, which may be the only one that is mapped.
  for (uint64_t edge = 0x1000; edge <= 0x2000; edge += 0x1000) {
    write64(bar2 + edge - 4, 0xa1b2c3d4e5f60718);
    check_equal(read64(bar2 + edge - 4), 0xa1b2c3d4e5f60718, "across a page's edge");
    check_equal(read32(bar2 + edge - 4), 0xe5f60718, "before the edge");
    check_equal(read32(bar2 + edge), 0xa1b2c3d4, "behind the edge");
    check_equal(read64(bar2 + edge - 12), 0, "nothing else was written");
    check_equal(read64(bar2 + edge + 4), 0, "nothing else was written");
  }

  // The device reads and writes guest memory.
  static volatile uint64_t target;
  write64(bar0 + kPeerDma, (uint64_t)&target);
  check_equal(read32(bar0 + kPeerId), 0xc0ffee01, "after DMA");
  check_equal(target >> 32, 0xd0d0d0d0, "DMA");
  target = 0x0f1e2d3c4b5a6978;
  write64(bar0 + kPeerFetch, (uint64_t)&target);
  check_equal(read64(bar0 + kPeerFetch), 0x0f1e2d3c4b5a6978, "DMA read");

  peer_command(0);
  check_equal(read32(bar0), 0xffffffff, "BAR0 after decoding");
  passed();
}
