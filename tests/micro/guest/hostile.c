// Two CPUs that mean harm: ports, config space both ways and BARs, which they put over RAM, over
// the machine's own and over each other, and move while the other uses them. Only what would hurt
// this program itself is left out: its own code, its interrupt controllers, the way to power off.
#include "peer.h"

enum {
  kRounds = 3000,
  kScratchSize = 0x40000,
};
#define RAM_END 0x8000000UL
#define SCRATCH 0x4000000UL  // RAM where BARs are put, and written to

static volatile uint64_t home[3];  // of BAR 0, 1, 2
static volatile uint32_t ready, done;
static volatile uint64_t bad_ram;

struct random {
  uint64_t state;
};
static uint64_t next(struct random* r) {
  r->state ^= r->state << 13;
  r->state ^= r->state >> 7;
  r->state ^= r->state << 17;
  return r->state;
}
static uint64_t below(struct random* r, uint64_t limit) {
  return next(r) % limit;
}

static uint64_t place(struct random* r) {
  switch (below(r, 9)) {
    case 0:
      return SCRATCH + below(r, 4) * 0x10000;
    case 1:
      return 0x200000;  // this program
    case 2:
      return ECAM + below(r, 4) * 0x8000;
    case 3:
      return IOAPIC + below(r, 4) * 0x100000;
    case 4:
      return 0xffffffff00000000UL >> below(r, 40);
    case 5:
      return RAM_END - 0x8000;  // half of it
    case 6:
      return 0;
    default:
      return home[below(r, 3)] + below(r, 3) * 0x1000;
  }
}

// Whether this program may write there, or read, without harm to itself.
static bool may_access(uint64_t at, bool write) {
  if (at >= SCRATCH && at + 8 <= SCRATCH + kScratchSize) return true;
  if (at < RAM_END) return !write;
  if (at >= 0x3f0000000UL) return false;  // not in the page tables
  if (at >= IOAPIC && at < 0x100000000UL) return !write;
  // Registers of the device that write to memory, hang, or raise a storm; and an MSI-X table entry
  // may be an NMI.
  const uint64_t word = (at & 0xfff) >> 3;
  return word != 5 && word != 11 && word != 12 && word != 13 &&
         !(write && at < 0x100000000UL && (at & 0xfff) < 0x40 && (at & 0xc) >= 8);
}

static void access(uint64_t at, struct random* r) {
  const uint32_t size = 1U << below(r, 4);
  at &= ~(uint64_t)(size - 1);
  const bool write = below(r, 2);
  if (!may_access(at, write)) return;
  const uint64_t value = next(r);
  switch (size | (write ? 16 : 0)) {
    case 1:
      read8(at);
      break;
    case 2:
      read16(at);
      break;
    case 4:
      read32(at);
      break;
    case 8:
      read64(at);
      break;
    case 17:
      write8(at, (uint8_t)value);
      break;
    case 18:
      write16(at, (uint16_t)value);
      break;
    case 20:
      write32(at, (uint32_t)value);
      break;
    default:
      write64(at, value);
      break;
  }
}

static void port(struct random* r) {
  const uint16_t at = (uint16_t)(below(r, 2) ? next(r) : kConfigAddress + below(r, 8));
  const bool own = (at >= kUart - 3 && at < kUart + 8) || (at >= kSleepControl - 3 && at < 0x608);
  const bool pic = at < 0x100 || at == 0x4d0 || at == 0x4d1;
  switch (below(r, 6)) {
    case 0:
      inb(at);
      break;
    case 1:
      inw(at);
      break;
    case 2:
      inl(at);
      break;
    case 3:
      if (!own && !pic) outb(at, (uint8_t)next(r));
      break;
    case 4:
      if (!own && !pic) outw(at, (uint16_t)next(r));
      break;
    default:
      // To the address port: any function, any register.
      if (!own && !pic)
        outl(at,
             at == kConfigAddress ? 0x80000000U | (uint32_t)below(r, 0x1000) : (uint32_t)next(r));
      break;
  }
}

static void string_io(struct random* r, uint8_t* buffer, uint64_t count) {
  const uint16_t at = below(r, 2) ? 0x80 : (uint16_t)(bar_address(kPeerSlot, 4) & 0xffff);
  if (at < 0x1000 && at != 0x80) return;
  uint8_t* to = buffer;
  uint64_t left = count;
  __asm__ volatile("rep insb" : "+D"(to), "+c"(left) : "d"(at) : "memory");
  to = buffer;
  left = count;
  __asm__ volatile("rep outsb" : "+S"(to), "+c"(left) : "d"(at) : "memory");
}

static void config(struct random* r) {
  static const uint8_t registers[] = {4,    4,    0x10, 0x14, 0x18, 0x1c,
                                      0x20, 0x30, 0x42, 0x40, 0x3c, 0};
  const uint32_t reg =
      below(r, 4) ? registers[below(r, sizeof(registers))] : (uint32_t)below(r, 0x1000) & ~3U;
  const uint32_t slot = below(r, 4) ? kPeerSlot : (uint32_t)below(r, 32);
  uint64_t value = next(r);
  if (reg == 4) value = below(r, 8) | 0x400;
  if (reg == 0x14 || reg == 0x10 || reg == 0x20) value = place(r);
  if (reg == 0x40 || reg == 0x42) value &= 0x3fff3fff;  // MSI-X stays off: its table is random
  if (below(r, 2)) {
    read32(config_at(slot, reg));
  } else if (reg == 0x18 || reg == 0x1c) {
    set_bar64(kPeerSlot, 2, place(r));
  } else {
    write32(config_at(slot, reg), (uint32_t)value);
  }
}

static void hammer(uint32_t cpu) {
  static uint8_t buffers[2][256];
  struct random r = {0x9e3779b97f4a7c15UL + cpu};
  // A word of RAM that only this CPU writes, under a BAR now and then.
  const uint64_t mine = SCRATCH + kScratchSize + 0x1000 + cpu * 8;
  for (uint64_t i = 1; i <= kRounds; ++i) {
    switch (below(&r, 8)) {
      case 0:
        port(&r);
        break;
      case 1:
      case 2:
        config(&r);
        break;
      case 3:
        access(place(&r) + below(&r, 0x10000), &r);
        break;
      case 4:
        access(bar_address(kPeerSlot, (uint32_t)below(&r, 3)) + below(&r, 0x1000), &r);
        break;
      case 5:
        if (below(&r, 8) == 0) string_io(&r, buffers[cpu], 1 + below(&r, 200));
        break;
      case 6:
        // A BAR over that word: RAM wins.
        if (below(&r, 4) == 0) set_bar64(kPeerSlot, 2, mine & ~0xffffUL);
        break;
      default:
        write64(mine, i);
        if (read64(mine) != i) bad_ram = i;
        break;
    }
  }
}

void ap_main(void) {
  ready = 1;
  hammer(1);
  done = 1;
}

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  for (uint32_t bar = 0; bar < 3; ++bar) home[bar] = bar_address(kPeerSlot, bar);
  const uint64_t ports = bar_address(kPeerSlot, 4);
  const uint64_t code = read64(0x200000);
  peer_command(7);
  start_cpu(1);
  while (!ready) relax();
  hammer(0);
  while (!done) relax();
  check_equal(bad_ram, 0, "RAM under a BAR");
  check_equal(read64(0x200000), code, "this program's code");

  // Into order again: the device is there and does what it did.
  peer_command(0);
  write32(config_at(kPeerSlot, 0x42) & ~3UL, 0x00000011);
  for (uint32_t bar = 0; bar < 2; ++bar) {
    write32(config_at(kPeerSlot, 0x10 + 4 * bar), (uint32_t)home[bar]);
  }
  set_bar64(kPeerSlot, 2, home[2]);
  write32(config_at(kPeerSlot, 0x20), (uint32_t)ports);
  peer_command(7);
  check_equal(read32(config_at(kPeerSlot, 0)), 0x0fed1b36, "device id");
  check_equal(read32(home[0] + kPeerId), 0xc0ffee01, "device register");
  write32(home[2] + 0x1100, 0x600d600d);
  check_equal(read32(home[2] + 0x1100), 0x600d600d, "BAR2");
  outl((uint16_t)ports + 8, 0x13579bdf);
  check_equal(inl((uint16_t)ports + 8), 0x13579bdf, "I/O BAR");
  passed();
}
