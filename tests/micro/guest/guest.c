#include "guest.h"

extern const char stubs[];
extern const char ap_start[], ap_end[];
void interrupt(uint64_t vector, uint64_t rip);

void* memcpy(void* to, const void* from, size_t size) {
  void* result = to;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size)::"memory");
  return result;
}

void* memset(void* to, int value, size_t size) {
  void* result = to;
  __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
  return result;
}

static void put_char(char c) {
  while ((inb(kUart + 5) & 0x20) == 0) relax();
  outb(kUart, (uint8_t)c);
}

void put_string(const char* text) {
  for (; *text != 0; ++text) put_char(*text);
}

void put_hex(uint64_t value) {
  bool leading = true;
  for (int shift = 60; shift >= 0; shift -= 4) {
    const uint32_t digit = (value >> shift) & 15;
    if (digit == 0 && leading && shift != 0) continue;
    leading = false;
    put_char((char)(digit < 10 ? '0' + digit : 'a' + digit - 10));
  }
}

void put_line(const char* name, uint64_t value) {
  put_string(name);
  put_char(' ');
  put_hex(value);
  put_char('\n');
}

_Noreturn void power_off(void) {
  outb(kSleepControl, (5 << 2) | 0x20);
  for (;;) __asm__ volatile("cli; hlt");
}

_Noreturn void passed(void) {
  put_string("PASSED\n");
  power_off();
}

_Noreturn void failed(const char* what, uint64_t value) {
  put_string("FAILED: ");
  put_line(what, value);
  power_off();
}

uint64_t bar_address(uint32_t slot, uint32_t bar) {
  const uint64_t at = config_at(slot, 0x10 + 4 * bar);
  const uint32_t low = read32(at);
  if (low & 1) return low & ~3U;
  uint64_t address = low & ~15U;
  if ((low & 6) == 4) address |= (uint64_t)read32(at + 4) << 32;
  return address;
}

void set_bar64(uint32_t slot, uint32_t bar, uint64_t address) {
  const uint64_t at = config_at(slot, 0x10 + 4 * bar);
  write32(at, (uint32_t)address);
  write32(at + 4, (uint32_t)(address >> 32));
}

uint32_t find_capability(uint32_t slot, uint8_t id) {
  uint32_t at = read8(config_at(slot, 0x34));
  for (int i = 0; at >= 0x40 && i < 48; ++i) {
    if (read8(config_at(slot, at)) == id) return at;
    at = read8(config_at(slot, at + 1));
  }
  return 0;
}

static interrupt_handler handlers[256];
static struct {
  uint16_t low, selector;
  uint8_t ist, type;
  uint16_t middle;
  uint32_t high, zero;
} __attribute__((packed)) idt[256];

void interrupt(uint64_t vector, uint64_t rip) {
  if (handlers[vector] != NULL) {
    handlers[vector]();
    return;
  }
  put_line("unexpected vector", vector);
  failed("at rip", rip);
}

void on_interrupt(uint8_t vector, interrupt_handler handler) {
  handlers[vector] = handler;
}

void interrupts_init(void) {
  for (uint32_t i = 0; i < 256; ++i) {
    const uint64_t at = (uint64_t)stubs + 16 * i;
    idt[i].low = (uint16_t)at;
    idt[i].selector = 8;
    idt[i].type = 0x8e;
    idt[i].middle = (uint16_t)(at >> 16);
    idt[i].high = (uint32_t)(at >> 32);
  }
  struct {
    uint16_t limit;
    uint64_t base;
  } __attribute__((packed)) pointer = {sizeof(idt) - 1, (uint64_t)idt};
  __asm__ volatile("lidt %0" ::"m"(pointer));
  apic_write(0xf0, 0x1ff);  // spurious vector 0xff, APIC on
  apic_write(0x80, 0);      // task priority
}

void end_of_interrupt(void) {
  apic_write(0xb0, 0);
}

static void ioapic_write(uint32_t reg, uint32_t value) {
  write32(IOAPIC, reg);
  write32(IOAPIC + 0x10, value);
}

void route_gsi(uint32_t gsi, uint8_t vector, bool level) {
  ioapic_write(0x10 + 2 * gsi + 1, 0);
  ioapic_write(0x10 + 2 * gsi, vector | (level ? 0x8000U : 0));
}

static void send_ipi(uint32_t apic_id, uint32_t command) {
  apic_write(0x310, apic_id << 24);
  apic_write(0x300, command);
  while (apic_read(0x300) & 0x1000) relax();
}

void start_cpu(uint32_t apic_id) {
  memcpy((void*)0x9000, ap_start, (size_t)(ap_end - ap_start));
  send_ipi(apic_id, 0x4500);  // INIT
  send_ipi(apic_id, 0x4609);  // start at 0x9000
}

__attribute__((weak)) void ap_main(void) {}
