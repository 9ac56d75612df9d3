// The boot protocol: EL1, interrupts masked, no MMU, X0 points at a device tree.
#include "guest.h"

void main(const uint8_t* tree) {
  check((READ_SYSTEM("CurrentEL") >> 2 & 3) == 1, "the guest begins in EL1");
  check(READ_SYSTEM("DAIF") == 0x3c0, "all interrupts are masked");
  check((READ_SYSTEM("SCTLR_EL1") & 1) == 0, "the MMU is off");
  check(((uint64_t)tree & 7) == 0, "the device tree is aligned");
  check(tree[0] == 0xd0 && tree[1] == 0x0d && tree[2] == 0xfe && tree[3] == 0xed,
        "X0 is the device tree");
  check(hvc(PSCI_VERSION, 0, 0, 0) >= 0x10000, "PSCI is 1.0 or newer");
  print("hello\n");
  power_off();
}
