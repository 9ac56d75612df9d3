// Starts every CPU that CPUID tells of; each adds to a counter and reports its own APIC id.
#include "guest.h"

static volatile uint32_t arrived;
static volatile uint64_t ids;
static volatile uint32_t sum;

void ap_main(void) {
  uint32_t out[4];
  cpuid(1, 0, out);
  __atomic_fetch_or(&ids, 1UL << (out[1] >> 24), __ATOMIC_SEQ_CST);
  for (int i = 0; i < 1000; ++i) __atomic_fetch_add(&sum, 1, __ATOMIC_SEQ_CST);
  __atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
}

int guest_main(void* start_info) {
  (void)start_info;
  interrupts_init();
  uint32_t out[4];
  cpuid(0xb, 1, out);
  const uint32_t cpus = out[1];
  for (uint32_t id = 1; id < cpus; ++id) start_cpu(id);
  while (arrived != cpus - 1) relax();
  check_equal(sum, 1000 * (cpus - 1), "sum");
  check_equal(ids, (cpus == 64 ? ~0UL : (1UL << cpus) - 1) & ~1UL, "APIC ids");
  put_line("cpus", cpus);
  passed();
}
