// PSCI CPU_ON: every vCPU of the machine comes up once, where it is told to, with its context.
#include "guest.h"

static volatile uint32_t up[8];

void other(uint64_t number) {
  const uint64_t id = READ_SYSTEM("MPIDR_EL1") & 0xffffff;
  up[number] = id == number ? 1 : 2;
  BARRIER();
}

void main(void) {
  for (uint64_t i = 1; i < 4; ++i) {
    check(hvc(PSCI_CPU_ON, i, (uint64_t)&secondary, i) == 0, "CPU_ON succeeds");
  }
  check(hvc(PSCI_CPU_ON, 0, (uint64_t)&secondary, 0) == -4, "CPU_ON of a running vCPU: ALREADY_ON");
  check(hvc(PSCI_CPU_ON, 9, (uint64_t)&secondary, 0) == -2,
        "CPU_ON of no vCPU: INVALID_PARAMETERS");
  for (uint64_t i = 1; i < 4; ++i) {
    while (up[i] == 0) {
    }
    check(up[i] == 1, "a vCPU's MPIDR is the one of the device tree");
  }
  print("4 up\n");
  power_off();
}
