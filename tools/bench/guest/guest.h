// The guest's machine: ports, memory, PCI by its configuration ports, the time stamp counter. All
// at CPL 3 with IOPL 3, memory mapped one to one.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol.h"

static inline void outb(uint16_t port, uint8_t v) {
  __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}
static inline void outl(uint16_t port, uint32_t v) {
  __asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port));
}
static inline uint32_t inl(uint16_t port) {
  uint32_t v;
  __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
  return v;
}
static inline uint32_t read32(uint64_t at) {
  uint32_t v;
  __asm__ volatile("movl (%1), %0" : "=r"(v) : "r"(at) : "memory");
  return v;
}
static inline void write32(uint64_t at, uint32_t v) {
  __asm__ volatile("movl %0, (%1)" ::"r"(v), "r"(at) : "memory");
}
static inline void write64(uint64_t at, uint64_t v) {
  __asm__ volatile("movq %0, (%1)" ::"r"(v), "r"(at) : "memory");
}
static inline void relax(void) {
  __asm__ volatile("pause" ::: "memory");
}
static inline uint64_t ticks(void) {
  uint32_t low, high;
  __asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high)::"memory");
  return ((uint64_t)high << 32) | low;
}

static inline uint32_t config_read(uint32_t slot, uint32_t reg) {
  outl(0xcf8, 0x80000000u | slot << 11 | (reg & 0xfc));
  return inl(0xcfc);
}
static inline void config_write(uint32_t slot, uint32_t reg, uint32_t value) {
  outl(0xcf8, 0x80000000u | slot << 11 | (reg & 0xfc));
  outl(0xcfc, value);
}
// The address of a 32- or 64-bit memory BAR.
static inline uint64_t bar_address(uint32_t slot, uint32_t bar) {
  const uint32_t low = config_read(slot, 0x10 + 4 * bar);
  uint64_t address = low & ~15U;
  if ((low & 6) == 4) address |= (uint64_t)config_read(slot, 0x14 + 4 * bar) << 32;
  return address;
}

// Ends the order at hand: `reason` reaches the person who runs the bench.
void fail(const char* reason, uint32_t detail);

extern volatile struct Shared* shared;
