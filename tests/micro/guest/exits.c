// Accesses that no device answers, string I/O, all widths, memory above 4 GiB.
#include "guest.h"

int guest_main(void* start_info) {
  (void)start_info;
  // Nothing is there: reads are all ones at every width, writes are dropped.
  check_equal(inb(0x9000), 0xff, "inb");
  check_equal(inw(0x9000), 0xffff, "inw");
  check_equal(inl(0x9000), 0xffffffff, "inl");
  outl(0x9000, 0x12345678);
  const uint64_t hole = 0xd8000000;
  check_equal(read8(hole), 0xff, "read8");
  check_equal(read16(hole), 0xffff, "read16");
  check_equal(read32(hole), 0xffffffff, "read32");
  check_equal(read64(hole), ~0UL, "read64");
  write64(hole, 1);
  check_equal(read64(hole), ~0UL, "read64 after a write");
  // A store that crosses a page is two exits.
  write64(hole + 0xffc, 0x1122334455667788);
  check_equal(read64(hole + 0xffc), ~0UL, "read64 across pages");
  // The UART's scratch register, then a string of accesses to one port.
  outb(kUart + 7, 0x5a);
  check_equal(inb(kUart + 7), 0x5a, "UART scratch");
  uint8_t bytes[16];
  void* to = bytes;
  uint64_t count = sizeof(bytes);
  __asm__ volatile("rep insb" : "+D"(to), "+c"(count) : "d"(kUart + 7) : "memory");
  for (unsigned i = 0; i < sizeof(bytes); ++i) check_equal(bytes[i], 0x5a, "rep insb");
  const char text[] = "rep outsb\n";
  const void* from = text;
  count = sizeof(text) - 1;
  __asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(kUart) : "memory");
  passed();
}
