// A device that may read 32 MiB of memory at 32 MiB, write the 32 MiB behind it, and touch nothing
// else: tried before and after its server was another one (a byte on the console).
#include "peer.h"

enum { kOutside = 0x1000000, kReadable = 0x2000000, kWritable = 0x4000000, kEnd = 0x6000000 };
static const uint64_t kMark = 0x1122334455667788;

static uint64_t bar0;

static void expect(uint64_t at, bool reads, bool writes, const char* what) {
  write64(at, kMark);
  write64(bar0 + kPeerFetch, at);
  check_equal(read64(bar0 + kPeerFetch), reads ? kMark : 0, what);
  write64(bar0 + kPeerDma, at);
  check_equal(read32(bar0 + kPeerId), 0xc0ffee01, "after DMA");
  check((read64(at) == kMark) == !writes, what, read64(at));
}

static void all_of_it(void) {
  expect(kOutside, false, false, "memory of no window");
  expect(kReadable - 8, false, false, "the last bytes before the windows");
  expect(kReadable, true, false, "the first bytes of the read-only window");
  expect(kWritable - 8, true, false, "the last bytes of the read-only window");
  expect(kWritable, true, true, "the first bytes of the writable window");
  expect(kEnd - 8, true, true, "the last bytes of the writable window");
  expect(kEnd, false, false, "the first bytes behind the windows");
}

int guest_main(void* start_info) {
  (void)start_info;
  peer_command(6);
  bar0 = bar_address(kPeerSlot, 0);
  all_of_it();
  put_string("ready\n");
  while ((inb(kUart + 5) & 1) == 0) relax();
  all_of_it();
  passed();
}
