// Prints the CPUID leaves the test looks at.
#include "guest.h"

static void show(const char* name, uint32_t leaf, uint32_t subleaf, int reg) {
  uint32_t out[4];
  cpuid(leaf, subleaf, out);
  put_line(name, out[reg]);
}

int guest_main(void* start_info) {
  (void)start_info;
  show("leaf1.ebx", 1, 0, 1);
  show("leaf1.ecx", 1, 0, 2);
  show("leafb.1.ebx", 0xb, 1, 1);
  show("leafb.0.edx", 0xb, 0, 3);
  show("hypervisor.ebx", 0x40000000, 0, 1);
  show("timing.eax", 0x40000010, 0, 0);
  show("leaf6.eax", 6, 0, 0);
  passed();
}
