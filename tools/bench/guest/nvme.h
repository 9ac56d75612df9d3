// A polled NVMe driver with one pair of I/O queues (NVMe 1.4), for one controller at a time. A
// failure is told by fail() and by `false`.
#pragma once

#include "guest.h"

// The controller in a PCI slot: reset, enabled, queues made, its first namespace's size known, a
// block written and read back. With `shadow` its doorbells go through a doorbell buffer.
bool nvme_open(uint32_t slot, bool shadow);

// `count` reads of 4 KiB at random places, up to `depth` in flight.
bool nvme_read(uint32_t count, uint32_t depth);

bool nvme_close(void);
