#include "guest.h"

static void put(char c) {
  while ((read8(UART + 5) & 0x20) == 0) {
  }
  write8(UART, (uint8_t)c);
}

void print(const char* text) {
  for (; *text != 0; ++text) put(*text);
}

void print_hex(uint64_t value) {
  for (int shift = 60; shift >= 0; shift -= 4) put("0123456789abcdef"[value >> shift & 15]);
}

void check(int holds, const char* what) {
  if (holds) return;
  print("FAILED: ");
  print(what);
  print("\n");
  power_off();
}

_Noreturn void power_off(void) {
  hvc(PSCI_SYSTEM_OFF, 0, 0, 0);
  for (;;) {
  }
}

_Noreturn void reset(void) {
  hvc(PSCI_SYSTEM_RESET, 0, 0, 0);
  for (;;) {
  }
}

// For guests that start no other vCPU.
__attribute__((weak)) void other(uint64_t number) {
  (void)number;
}
