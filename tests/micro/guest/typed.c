// Reads 1 MiB from the console as fast as it comes, in pieces of the receive FIFO's trigger level,
// and checks every byte: byte i is i modulo 251.
#include "guest.h"

#define BUFFER 0x4000000UL
enum { kTotal = 1 << 20, kPeriod = 251, kTrigger = 14 };

static void read_bytes(uint64_t to, uint64_t count) {
  __asm__ volatile("rep insb" : "+D"(to), "+c"(count) : "d"(kUart) : "memory");
}

int guest_main(void* start_info) {
  (void)start_info;
  outb(kUart + 2, 0xc7);  // FIFOs on and empty, trigger level 14
  outb(kUart + 1, 0x01);  // received data; GSI 4 stays masked, IIR is polled
  outb(kUart + 4, 0x03);  // DTR, RTS
  put_string("ready\n");
  uint64_t count = 0;
  while (count < kTotal) {
    const uint8_t identification = inb(kUart + 2) & 0x0f;
    if (identification == 0x04 && kTotal - count >= kTrigger) {
      read_bytes(BUFFER + count, kTrigger);  // at least so many are there
      count += kTrigger;
    } else if (inb(kUart + 5) & 1) {
      read_bytes(BUFFER + count, 1);
      ++count;
    }
    // Flow control, as a driver does whose buffer is full: RTS off, and on again.
    if ((count & 0xffff) < kTrigger) {
      outb(kUart + 4, 0x01);
      for (int i = 0; i < 100; ++i) relax();
      outb(kUart + 4, 0x03);
    }
  }
  check((inb(kUart + 5) & 2) == 0, "overrun", 0);
  for (uint64_t i = 0; i < kPeriod; ++i) check_equal(read8(BUFFER + i), i, "a byte");
  // The rest repeats what was checked.
  uint64_t from = BUFFER, to = BUFFER + kPeriod, left = kTotal - kPeriod;
  bool same;
  __asm__ volatile("repe cmpsb; sete %0"
                   : "=q"(same), "+S"(from), "+D"(to), "+c"(left)
                   :
                   : "memory", "cc");
  check(same && left == 0, "bytes differ, still to compare", left);
  passed();
}
