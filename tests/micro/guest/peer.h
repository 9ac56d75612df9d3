// The test's PCI device in slot 1, as its driver sees it. See tests/micro/peer.h.
#pragma once

#include "guest.h"

enum { kPeerSlot = 1, kPeerVectors = 4 };

// Registers in BAR0
enum {
  kPeerId = 0x00,       // 0xc0ffee01
  kPeerScratch = 0x08,  // 8 bytes, 0 after a reset
  kPeerRing = 0x10,     // write n: MSI-X vector n
  kPeerIntx = 0x18,     // write 1: raise INTA, 0: lower it
  kPeerUnmasks = 0x20,  // how often INTA was unmasked
  kPeerDma = 0x28,      // write an address: the device writes 8 bytes there
  kPeerResets = 0x30,
  kPeerSignal = 0x38,  // write n: signals interrupt type n (3 ERR, 4 REQ)
  kPeerBell = 0x40,    // 4 bytes: an eventfd, when offered; read: how often it was signalled
  kPeerWrites = 0x48,  // write messages so far
  kPeerOffer = 0x50,   // write 0: the eventfd is taken away, 1: it is offered again
  kPeerHang = 0x58,    // a read of it does not come back
  kPeerStorm = 0x60,   // write n: MSI-X vector 1, n times
  kPeerFetch = 0x68,   // write an address: the device reads 8 bytes there; read: what it got
};

static inline void peer_command(uint16_t bits) {
  write16(config_at(kPeerSlot, 4), bits);  // 1 I/O, 2 memory, 4 bus master, 0x400 INTx off
}
