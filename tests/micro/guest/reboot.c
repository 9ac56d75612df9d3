// Reboots itself five times through the reset register. A counter far up in memory survives; what a
// reset must undo is changed before each and checked after.
#include "peer.h"

#define COUNTER 0x6000000UL
#define MAGIC 0x7265626f6f740000UL

int guest_main(void* start_info) {
  (void)start_info;
  uint64_t count = read64(COUNTER);
  if ((count & ~0xffUL) != MAGIC) count = MAGIC;
  const uint32_t boots = count & 0xff;
  const bool has_device = read16(config_at(kPeerSlot, 0)) == 0x1b36;

  // Fresh: registers, local APIC, IOAPIC, console, device.
  check_equal(rdmsr(0xc0000082), 0, "LSTAR");
  check_equal(rdmsr(0x1b) & 0xc00, 0x800, "local APIC mode");
  check_equal(apic_read(0xf0), 0xff, "spurious vector register");
  check_equal(apic_read(0x380), 0, "APIC timer");
  write32(IOAPIC, 0x10 + 2 * 20);
  check(read32(IOAPIC + 0x10) & 0x10000, "IOAPIC pin 20 is masked", read32(IOAPIC + 0x10));
  check_equal(inb(kUart + 7), boots == 0 ? inb(kUart + 7) : 0, "UART scratch");
  uint64_t dr7;
  __asm__ volatile("movq %%dr7, %0" : "=r"(dr7));
  check_equal(dr7, 0x400, "DR7");
  if (has_device) {
    check_equal(read16(config_at(kPeerSlot, 4)) & 7, 0, "command register");
    const uint64_t home = bar_address(kPeerSlot, 2);
    check(home >= 0x100000000 && (home & 0xffff) == 0, "BAR2", home);
    if (boots == 0) {
      write64(COUNTER + 8, home);
    } else {
      check_equal(home, read64(COUNTER + 8), "BAR2 is back in its place");
    }
    peer_command(6);
    const uint64_t bar0 = bar_address(kPeerSlot, 0);
    check_equal(read64(bar0 + kPeerScratch), 0, "device state");
    check_equal(read32(bar0 + kPeerResets), boots, "device resets");
    write64(bar0 + kPeerScratch, 0xdead);
    set_bar64(kPeerSlot, 2, home + 0x1000000);
    const uint32_t capability = find_capability(kPeerSlot, 0x11);
    check_equal(read16(config_at(kPeerSlot, capability + 2)) & 0xc000, 0, "MSI-X");
    write16(config_at(kPeerSlot, capability + 2), 0xc000);
  }
  put_line("boot", boots);
  if (boots == 5) passed();

  // Make a mess.
  interrupts_init();
  route_gsi(20, 0x77, true);
  wrmsr(0xc0000082, 0x1234);
  outb(kUart + 7, 0x99);
  outb(kUart + 1, 0x0f);
  apic_write(0x320, 0x20071);
  apic_write(0x380, 0x10000000);
  uint64_t debug = 0x401;
  __asm__ volatile("movq %0, %%dr7" ::"r"(debug));
  wrmsr(0x1b, rdmsr(0x1b) | 0x400);  // x2APIC mode
  write64(COUNTER, count + 1);
  outb(kResetPort, 1);
  for (;;) __asm__ volatile("cli; hlt");
}
