// What hand-made guests share: ports, console, PCI, interrupt controllers, starting CPUs.
// Everything runs at CPL 0 in long mode with memory mapped one to one. A guest ends by passed() or
// by a check() that fails.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The machine's fixed places, as in vmm/x86_64/layout.h.
enum {
  kUart = 0x3f8,
  kSleepControl = 0x600,
  kResetPort = 0x602,
  kMarkPort = 0x606,
  kConfigAddress = 0xcf8,
  kConfigData = 0xcfc,
  kUartGsi = 4,
  kPowerButtonGsi = 5,
  kFirstIntxGsi = 16,
};
#define ECAM 0xe0000000UL
#define IOAPIC 0xfec00000UL
#define LOCAL_APIC 0xfee00000UL

static inline void outb(uint16_t port, uint8_t v) {
  __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}
static inline void outw(uint16_t port, uint16_t v) {
  __asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(port));
}
static inline void outl(uint16_t port, uint32_t v) {
  __asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port));
}
static inline uint8_t inb(uint16_t port) {
  uint8_t v;
  __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
  return v;
}
static inline uint16_t inw(uint16_t port) {
  uint16_t v;
  __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
  return v;
}
static inline uint32_t inl(uint16_t port) {
  uint32_t v;
  __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
  return v;
}

static inline uint8_t read8(uint64_t at) {
  uint8_t v;
  __asm__ volatile("movb (%1), %0" : "=q"(v) : "r"(at) : "memory");
  return v;
}
static inline uint16_t read16(uint64_t at) {
  uint16_t v;
  __asm__ volatile("movw (%1), %0" : "=r"(v) : "r"(at) : "memory");
  return v;
}
static inline uint32_t read32(uint64_t at) {
  uint32_t v;
  __asm__ volatile("movl (%1), %0" : "=r"(v) : "r"(at) : "memory");
  return v;
}
static inline uint64_t read64(uint64_t at) {
  uint64_t v;
  __asm__ volatile("movq (%1), %0" : "=r"(v) : "r"(at) : "memory");
  return v;
}
static inline void write8(uint64_t at, uint8_t v) {
  __asm__ volatile("movb %0, (%1)" ::"q"(v), "r"(at) : "memory");
}
static inline void write16(uint64_t at, uint16_t v) {
  __asm__ volatile("movw %0, (%1)" ::"r"(v), "r"(at) : "memory");
}
static inline void write32(uint64_t at, uint32_t v) {
  __asm__ volatile("movl %0, (%1)" ::"r"(v), "r"(at) : "memory");
}
static inline void write64(uint64_t at, uint64_t v) {
  __asm__ volatile("movq %0, (%1)" ::"r"(v), "r"(at) : "memory");
}

static inline uint64_t rdmsr(uint32_t index) {
  uint32_t low, high;
  __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
  return ((uint64_t)high << 32) | low;
}
static inline void wrmsr(uint32_t index, uint64_t v) {
  __asm__ volatile("wrmsr" ::"c"(index), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)));
}
static inline uint64_t rdtsc(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return ((uint64_t)high << 32) | low;
}
static inline void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]) {
  __asm__ volatile("cpuid"
                   : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                   : "a"(leaf), "c"(subleaf));
}
static inline void interrupts_on(void) {
  __asm__ volatile("sti" ::: "memory");
}
static inline void interrupts_off(void) {
  __asm__ volatile("cli" ::: "memory");
}
static inline void wait_for_interrupt(void) {
  __asm__ volatile("sti; hlt; cli" ::: "memory");
}
static inline void relax(void) {
  __asm__ volatile("pause" ::: "memory");
}

// Console.
void put_string(const char* text);
void put_hex(uint64_t value);
void put_line(const char* name, uint64_t value);  // "name 1f\n"

// The ends of a guest.
_Noreturn void power_off(void);
_Noreturn void passed(void);                              // "PASSED\n", power-off
_Noreturn void failed(const char* what, uint64_t value);  // "FAILED: what value\n", power-off
static inline void check(bool truth, const char* what, uint64_t value) {
  if (!truth) failed(what, value);
}
static inline void check_equal(uint64_t got, uint64_t wanted, const char* what) {
  check(got == wanted, what, got);
}

// PCI function 0 of `slot` on bus 0, by ECAM.
static inline uint64_t config_at(uint32_t slot, uint32_t reg) {
  return ECAM + (slot << 15) + reg;
}
// The address of a 32- or 64-bit memory BAR, or the port of an I/O BAR.
uint64_t bar_address(uint32_t slot, uint32_t bar);
void set_bar64(uint32_t slot, uint32_t bar, uint64_t address);
uint32_t find_capability(uint32_t slot, uint8_t id);  // offset, 0 when absent

// Interrupts: handlers run with interrupts off, on whichever CPU; EOI is theirs to send.
typedef void (*interrupt_handler)(void);
void interrupts_init(void);  // IDT and local APIC of this CPU
void on_interrupt(uint8_t vector, interrupt_handler handler);
void end_of_interrupt(void);
void route_gsi(uint32_t gsi, uint8_t vector, bool level);  // IOAPIC pin to CPU 0
static inline uint32_t apic_read(uint32_t reg) {
  return read32(LOCAL_APIC + reg);
}
static inline void apic_write(uint32_t reg, uint32_t v) {
  write32(LOCAL_APIC + reg, v);
}

// Starts the CPU with that APIC id: it runs ap_main().
void start_cpu(uint32_t apic_id);

int guest_main(void* start_info);
void ap_main(void);  // weak: halts
