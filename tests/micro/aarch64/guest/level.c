// Counts the interrupts of INTA of PCI slot 1, SPI 16, which is INTID 48: acknowledges each and
// ends it.
#include "guest.h"

#define INTID 48

void main(void) {
  write32(DISTRIBUTOR, 0x12);  // affinity routing is on, group 1
  write32(DISTRIBUTOR + 0x80 + 4 * (INTID / 32), ~0u);
  write32(DISTRIBUTOR + 0xc00 + 4 * (INTID / 16), 0);  // level-triggered
  write32(DISTRIBUTOR + 0x100 + 4 * (INTID / 32), 1u << INTID % 32);
  write32(REDISTRIBUTORS + 0x14, 0);  // awake
  WRITE_SYSTEM("S3_0_C12_C12_5", 7);  // ICC_SRE_EL1
  WRITE_SYSTEM("S3_0_C4_C6_0", 0xff);
  WRITE_SYSTEM("S3_0_C12_C12_7", 1);
  write32(SHARED + 4, 1);
  BARRIER();
  for (;;) {
    __asm__ volatile("wfi");
    const uint64_t id = READ_SYSTEM("S3_0_C12_C12_0");  // ICC_IAR1_EL1
    if (id == INTID) {
      write32(SHARED, read32(SHARED) + 1);
      BARRIER();
    }
    if (id < 1020) WRITE_SYSTEM("S3_0_C12_C12_1", id);  // ICC_EOIR1_EL1
  }
}
