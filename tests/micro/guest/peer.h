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
  kPeerBell = 0x40,    // 4 bytes: an eventfd, when offered; read: how often it was signalled
  kPeerWrites = 0x48,  // write messages so far
  kPeerOffer = 0x50,   // write 0: the eventfd is taken away, 1: it is offered again
};

static inline void peer_command(uint16_t bits) {
  write16(config_at(kPeerSlot, 4), bits);  // 1 I/O, 2 memory, 4 bus master, 0x400 INTx off
}
