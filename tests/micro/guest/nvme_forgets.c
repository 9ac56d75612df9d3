// Writes and reads blocks while the controller's server is killed and its successor knows nothing:
// a driver that sees it by a controller that is not ready, or by a command without an answer, sets
// the controller up anew, and finds every block as it was acknowledged. A byte on the console ends
// it.
#include "nvme.h"

enum { kBlocks = 64, kRead = 0x02, kWrite = 0x01, kCreateSq = 0x01, kCreateCq = 0x05 };
#define DATA_OUT 0x1010000UL
#define DATA_IN 0x1011000UL
// TSC ticks: some ten seconds, since a server may have to share its CPU, and thrice that.
#define PATIENCE 40000000000UL
#define GIVE_UP 120000000000UL

struct queue_pair {
  uint64_t commands, completions;
  uint32_t doorbell;  // of the submission queue; the other one's follows
  uint32_t tail, head, phase;
};
static struct queue_pair admin_queue, io_queue;
static uint64_t acknowledged[kBlocks];  // what is in each block
static uint32_t unsure_block;           // was being written when the server died,
static uint64_t unsure_value;           // with this

static uint64_t now(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}

// Not the controller that was set up.
static bool lost(void) {
  const uint32_t status = read32(nvme_bar + kCsts);
  return status == 0xffffffff || (status & 3) != 1 || (read32(nvme_bar + kCc) & 1) == 0;
}

// False: nobody has answered.
static bool execute(struct queue_pair* queue, uint8_t opcode, uint32_t namespace, uint64_t memory,
                    uint32_t dw10, uint32_t dw11) {
  const uint64_t entry = queue->commands + 64 * queue->tail;
  zero_pages(entry, entry + 64);
  write32(entry, opcode | (queue->tail + 1) << 16);
  write32(entry + 4, namespace);
  write64(entry + 24, memory);
  write32(entry + 40, dw10);
  write32(entry + 44, dw11);
  const uint32_t id = queue->tail + 1;
  queue->tail = (queue->tail + 1) % kIoEntries;
  write32(nvme_bar + queue->doorbell, queue->tail);
  const uint64_t completion = queue->completions + 16 * queue->head;
  const uint64_t begin = now();
  for (uint32_t looks = 1; (read32(completion + 12) >> 16 & 1) != queue->phase; ++looks) {
    if (looks % 1024 == 0 && (lost() || now() - begin > PATIENCE)) return false;
    relax();
  }
  check_equal(read32(completion + 12) & 0xffff, id, "command id");
  check_equal(read32(completion + 12) >> 17, 0, "status");
  queue->head = (queue->head + 1) % kIoEntries;
  if (queue->head == 0) queue->phase ^= 1;
  write32(nvme_bar + queue->doorbell + 4, queue->head);
  return true;
}

static bool wait_for_ready(uint32_t ready) {
  const uint64_t begin = now();
  for (;;) {
    const uint32_t status = read32(nvme_bar + kCsts);
    if (status == 0xffffffff || now() - begin > PATIENCE) return false;
    if ((status & 1) == ready) return true;
    if ((read32(nvme_bar + kCc) & 1) != ready) return false;
    relax();
  }
}

// False: the server died meanwhile, and what was written to it may be lost.
static bool set_up(void) {
  write32(nvme_bar + kCc, 0);
  if (!wait_for_ready(0)) return false;
  zero_pages(ADMIN_SQ, DOORBELLS);
  admin_queue = (struct queue_pair){ADMIN_SQ, ADMIN_CQ, 0x1000, 0, 0, 1};
  io_queue = (struct queue_pair){IO_SQ, IO_CQ, kSq1Doorbell, 0, 0, 1};
  write32(nvme_bar + kAqa, (kAdminEntries - 1) << 16 | (kAdminEntries - 1));
  write32(nvme_bar + kAsq, (uint32_t)ADMIN_SQ);
  write32(nvme_bar + kAsq + 4, 0);
  write32(nvme_bar + kAcq, (uint32_t)ADMIN_CQ);
  write32(nvme_bar + kAcq + 4, 0);
  write32(nvme_bar + kCc, 6u << 16 | 4u << 20 | 1);
  return wait_for_ready(1) && !lost() &&
         execute(&admin_queue, kCreateCq, 0, IO_CQ, (kIoEntries - 1) << 16 | 1, 1) &&
         execute(&admin_queue, kCreateSq, 0, IO_SQ, (kIoEntries - 1) << 16 | 1, 1 << 16 | 1);
}

static bool write_block(uint32_t block, uint64_t value) {
  for (int i = 0; i < 64; ++i) write64(DATA_OUT + 8 * i, value + i);
  unsure_block = block;
  unsure_value = value;
  if (!execute(&io_queue, kWrite, 1, DATA_OUT, block, 0)) return false;
  acknowledged[block] = value;
  return true;
}

static bool check_block(uint32_t block) {
  zero_pages(DATA_IN, DATA_IN + 512);
  if (!execute(&io_queue, kRead, 1, DATA_IN, block, 0)) return false;
  const uint64_t first = read64(DATA_IN);
  if (block == unsure_block && first == unsure_value) acknowledged[block] = unsure_value;
  check_equal(first, acknowledged[block], "data");
  if (first == 0) return true;  // never written
  for (int i = 1; i < 64; ++i) check_equal(read64(DATA_IN + 8 * i), first + i, "data");
  return true;
}

static bool check_all(void) {
  for (uint32_t block = 0; block < kBlocks; ++block) {
    if (!check_block(block)) return false;
  }
  return true;
}

int guest_main(void* start_info) {
  (void)start_info;
  nvme_find();
  uint64_t rounds = 0, recoveries = 0;
  bool usable = set_up();
  uint64_t lost_at = now();
  while (rounds < kBlocks || !usable || (inb(kUart + 5) & 1) == 0) {
    if (!usable) {
      usable = set_up() && check_all();
      if (usable) put_line("recovered", ++recoveries);
      check(usable || now() - lost_at < GIVE_UP, "the controller does not come back", recoveries);
      continue;
    }
    const uint32_t block = (uint32_t)(rounds * 37 % kBlocks);
    usable = write_block(block, ++rounds << 8) && check_block(block);
    if (!usable) lost_at = now();
    // Again, for whoever listens late.
    if (usable && rounds >= kBlocks && rounds % 16 == 0) put_string("ready\n");
  }
  put_line("rounds", rounds);
  passed();
}
