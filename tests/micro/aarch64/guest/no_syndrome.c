// A load of two registers from no memory: the processor does not say which, so KVM cannot go on.
#include "guest.h"

void main(void) {
  print("about to load\n");
  __asm__ volatile("ldp x3, x4, [%0]" ::"r"(NOTHING) : "x3", "x4", "memory");
  print("FAILED: the load came back\n");
  power_off();
}
