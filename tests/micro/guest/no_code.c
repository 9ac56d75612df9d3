// Jumps to an address where there is neither memory nor a device: KVM has no instruction to run.
#include "guest.h"

int guest_main(void* start_info) {
  (void)start_info;
  put_string("about to jump\n");
  __asm__ volatile("movq $0x1122334455667788, %%r15; jmp *%0" ::"r"(0xd8000000UL) : "r15");
  failed("still here", 0);
}
