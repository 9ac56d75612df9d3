// What the arm64 guests share: the machine's fixed places, as in vmm/aarch64/layout.h, and a few
// ways to use them.
#pragma once

#include <stdint.h>

#define DISTRIBUTOR 0x08000000ul
#define ITS 0x08080000ul
#define REDISTRIBUTORS 0x080a0000ul
#define REDISTRIBUTOR_SIZE 0x20000ul
#define UART 0x09000000ul
#define PORTS 0x0b000000ul
#define ECAM 0x0c000000ul
#define NOTHING 0x0a000000ul
// Words that a test reads and writes from outside.
#define SHARED 0x46000000ul

#define PSCI_VERSION 0x84000000u
#define PSCI_CPU_ON 0xc4000003u
#define PSCI_SYSTEM_OFF 0x84000008u
#define PSCI_SYSTEM_RESET 0x84000009u

static inline uint8_t read8(uint64_t at) {
  return *(volatile uint8_t*)at;
}
static inline void write8(uint64_t at, uint8_t value) {
  *(volatile uint8_t*)at = value;
}
static inline uint32_t read32(uint64_t at) {
  return *(volatile uint32_t*)at;
}
static inline void write32(uint64_t at, uint32_t value) {
  *(volatile uint32_t*)at = value;
}

#define READ_SYSTEM(name)                                       \
  ({                                                            \
    uint64_t value_;                                            \
    __asm__ volatile("mrs %0, " name : "=r"(value_)::"memory"); \
    value_;                                                     \
  })
#define WRITE_SYSTEM(name, value)                                                    \
  do {                                                                               \
    __asm__ volatile("msr " name ", %0\n\tisb" ::"r"((uint64_t)(value)) : "memory"); \
  } while (0)
#define BARRIER() __asm__ volatile("dsb sy" ::: "memory")

int64_t hvc(uint64_t function, uint64_t a, uint64_t b, uint64_t c);
void secondary(void);

void print(const char* text);
void print_hex(uint64_t value);
// Prints a line and powers off when it does not hold.
void check(int holds, const char* what);
_Noreturn void power_off(void);
_Noreturn void reset(void);
