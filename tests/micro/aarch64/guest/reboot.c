// A reset gives back the power-on state of the interrupt controller and of the other vCPU; memory
// keeps its content.
#include "guest.h"

#define BOOTS (SHARED)
#define PRIVATE_FRAME (REDISTRIBUTORS + 0x10000)

void other(uint64_t number) {
  (void)number;
  write32(SHARED + 4, 1);
  for (;;) {
  }
}

static void check_power_on(void) {
  check((read32(DISTRIBUTOR) & 3) == 0, "the distributor is off");
  check(read32(DISTRIBUTOR + 0x104) == 0, "no SPI is enabled");
  check(read32(DISTRIBUTOR + 0x204) == 0, "no SPI is pending");
  check(read32(DISTRIBUTOR + 0x304) == 0, "no SPI is active");
  check(read32(DISTRIBUTOR + 0x420) == 0, "every SPI's priority is 0");
  check(read32(DISTRIBUTOR + 0xc08) == 0xaaaaaaaa, "every SPI is edge-triggered, as KVM has it");
  check((read32(PRIVATE_FRAME + 0x100) & 0xffff0000) == 0, "no PPI is enabled");
  check((read32(REDISTRIBUTORS) & 1) == 0, "LPIs are off");
  check(READ_SYSTEM("S3_0_C4_C6_0") == 0, "the priority mask is 0");
  check((READ_SYSTEM("S3_0_C12_C12_7") & 1) == 0, "group 1 is off");
  check((read32(ITS) & 1) == 0, "the ITS is off");
}

static void disturb(void) {
  write32(DISTRIBUTOR, 0x12);
  write32(DISTRIBUTOR + 0x84, ~0u);
  write32(DISTRIBUTOR + 0x420, 0xa0a0a0a0);
  write32(DISTRIBUTOR + 0xc08, 0);
  write32(DISTRIBUTOR + 0x104, ~0u);
  write32(DISTRIBUTOR + 0x204, 0xff);
  write32(PRIVATE_FRAME + 0x100, ~0u);
  WRITE_SYSTEM("S3_0_C4_C6_0", 0xf0);
  WRITE_SYSTEM("S3_0_C12_C12_7", 1);
  // Tables for LPIs, then LPIs on: Linux refuses to find them so.
  *(volatile uint64_t*)(REDISTRIBUTORS + 0x70) = 0x42000000 | 13;
  *(volatile uint64_t*)(REDISTRIBUTORS + 0x78) = 0x42100000;
  write32(REDISTRIBUTORS, 1);
  check((read32(REDISTRIBUTORS) & 1) == 1, "LPIs can be turned on");
}

void main(void) {
  const uint32_t boots = read32(BOOTS);
  print("boot ");
  print((const char[]){(char)('0' + boots), '\n', 0});
  check_power_on();
  check(hvc(PSCI_CPU_ON, 1, (uint64_t)&secondary, 1) == 0, "vCPU 1 was off and comes up");
  while (read32(SHARED + 4) == 0) {
  }
  write32(SHARED + 4, 0);
  if (boots == 5) {
    print("PASSED\n");
    power_off();
  }
  disturb();
  write32(BOOTS, boots + 1);
  BARRIER();
  reset();
}
