// Ports of the PCI bus are memory here: one read and one write of a test's device at port 0x1040.
#include "guest.h"

void main(void) {
  check(read32(PORTS + 0x1040) == 0x11223344, "the port reads as its device says");
  write32(PORTS + 0x1044, 0x55667788);
  check(read32(PORTS + 0x2000) == ~0u, "a port that nobody has reads all ones");
  check((read32(ECAM) & 0xffff) == 0x1b36, "ECAM shows the host bridge");
  print("PASSED\n");
  power_off();
}
