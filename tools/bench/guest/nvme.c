#include "nvme.h"

enum {
  kConfiguration = 0x14,
  kStatus = 0x1c,
  kAdminSizes = 0x24,
  kAdminSubmission = 0x28,
  kAdminCompletion = 0x30,
  kDoorbells = 0x1000,

  kPage = 4096,
  kMaxDepth = 32,
  // Four times the depth, as drivers have it: with a doorbell buffer a controller that is busy asks
  // to be told on the far side of the ring, which must not be where the next few commands end.
  kEntries = 128,
  kSubmissionPages = kEntries * 64 / kPage,
};

enum {  // opcodes
  kCreateSubmissionQueue = 0x01,
  kCreateCompletionQueue = 0x05,
  kIdentify = 0x06,
  kDoorbellBuffer = 0x7c,
  kWrite = 0x01,
  kRead = 0x02,
};

typedef struct {
  uint8_t bytes[kPage];
} __attribute__((aligned(4096))) Page;

static Page admin_submissions[kSubmissionPages], admin_completions;
static Page submissions[kSubmissionPages], completions;
static Page identity, buffer, event_index, data[kMaxDepth];

struct Queue {
  uint64_t submissions, completions;
  uint32_t index;  // 0 admin, 1 I/O
  uint32_t tail, head, phase;
};

static uint64_t registers;
static bool with_buffer;
static struct Queue admin, io;
static uint32_t blocks_of_4k_shift;  // logical blocks in 4 KiB, as a power of two
static uint64_t random_state = 88172645463325252u;

static uint32_t get(uint32_t reg) {
  ++shared->accesses;
  return read32(registers + reg);
}

static void set(uint32_t reg, uint32_t value) {
  ++shared->accesses;
  write32(registers + reg, value);
}

static void clear(Page* page) {
  for (uint32_t i = 0; i < kPage; i += 8) write64((uint64_t)page + i, 0);
}

// NVMe 1.4 B.5: whether the controller wants to be told of this doorbell by its register. The
// exchange is the fence between the store and the load.
static bool must_ring(uint32_t doorbell, uint32_t value) {
  if (!with_buffer || doorbell < 2) return true;
  const uint64_t at = (uint64_t)&buffer + 4 * doorbell;
  const uint16_t old = (uint16_t)read32(at);
  uint32_t v = value;
  __asm__ volatile("xchgl %0, (%1)" : "+r"(v) : "r"(at) : "memory");
  const uint16_t event = (uint16_t)read32((uint64_t)&event_index + 4 * doorbell);
  return (uint16_t)((uint16_t)value - event - 1) < (uint16_t)((uint16_t)value - old);
}

static void ring(uint32_t doorbell, uint32_t value) {
  if (!must_ring(doorbell, value)) return;
  if (doorbell >= 2) ++shared->rings;
  write32(registers + kDoorbells + 4 * doorbell, value);
}

static uint64_t next_entry(struct Queue* queue, uint32_t opcode, uint32_t id) {
  const uint64_t entry = queue->submissions + 64 * queue->tail;
  for (uint32_t i = 0; i < 64; i += 8) write64(entry + i, 0);
  write32(entry, opcode | id << 16);
  queue->tail = (queue->tail + 1) % kEntries;
  return entry;
}

static bool arrived(const struct Queue* queue) {
  return (read32(queue->completions + 16 * queue->head + 12) >> 16 & 1) == queue->phase;
}

// Takes the completion at the head: its command's id, or -1 and a failure.
static int take(struct Queue* queue) {
  const uint32_t word = read32(queue->completions + 16 * queue->head + 12);
  queue->head = (queue->head + 1) % kEntries;
  if (queue->head == 0) queue->phase ^= 1;
  if (word >> 17 != 0) {
    fail("an NVMe command failed with status", word >> 17);
    return -1;
  }
  return (int)(word & 0xffff);
}

static bool wait(struct Queue* queue) {
  const uint64_t start = ticks();
  while (!arrived(queue)) {
    relax();
    if (ticks() - start > 30000000000u) {  // some 10 s
      fail("an NVMe command got no completion", queue->index);
      return false;
    }
  }
  const bool good = take(queue) >= 0;
  ring(2 * queue->index + 1, queue->head);
  return good;
}

static bool run(struct Queue* queue, uint32_t opcode, uint32_t nsid, uint64_t pointer1,
                uint64_t pointer2, uint32_t word10, uint32_t word11, uint32_t word12) {
  const uint64_t entry = next_entry(queue, opcode, 0);
  write32(entry + 4, nsid);
  write64(entry + 24, pointer1);
  write64(entry + 32, pointer2);
  write32(entry + 40, word10);
  write32(entry + 44, word11);
  write32(entry + 48, word12);
  ring(2 * queue->index, queue->tail);
  return wait(queue);
}

static bool wait_ready(uint32_t wanted) {
  const uint64_t start = ticks();
  while ((get(kStatus) & 1) != wanted) {
    relax();
    if (ticks() - start > 30000000000u) {
      fail("the NVMe controller does not change CSTS.RDY to", wanted);
      return false;
    }
  }
  return true;
}

static void reset_queue(struct Queue* queue, uint32_t index, Page* submission, Page* completion) {
  for (uint32_t i = 0; i < kSubmissionPages; ++i) clear(&submission[i]);
  clear(completion);
  *queue = (struct Queue){(uint64_t)submission, (uint64_t)completion, index, 0, 0, 1};
}

static bool transfer(uint32_t opcode, Page* page, uint64_t place) {
  const uint64_t block = place << blocks_of_4k_shift;
  return run(&io, opcode, 1, (uint64_t)page, 0, (uint32_t)block, (uint32_t)(block >> 32),
             (1u << blocks_of_4k_shift) - 1);
}

static bool check_disk(void) {
  for (uint32_t i = 0; i < kPage; i += 8) write64((uint64_t)&data[0] + i, random_state + i);
  clear(&data[1]);
  if (!transfer(kWrite, &data[0], 1) || !transfer(kRead, &data[1], 1)) return false;
  for (uint32_t i = 0; i < kPage; ++i) {
    if (data[0].bytes[i] == data[1].bytes[i]) continue;
    fail("the NVMe disk returns other bytes than were written, at", i);
    return false;
  }
  return true;
}

bool nvme_open(uint32_t slot, bool shadow) {
  if (config_read(slot, 8) >> 8 != 0x010802) {
    fail("no NVMe controller in PCI slot", slot);
    return false;
  }
  config_write(slot, 4, 6);  // memory decoding, bus master
  registers = bar_address(slot, 0);
  with_buffer = false;
  set(kConfiguration, 0);
  if (!wait_ready(0)) return false;
  reset_queue(&admin, 0, admin_submissions, &admin_completions);
  reset_queue(&io, 1, submissions, &completions);
  set(kAdminSizes, (kEntries - 1) << 16 | (kEntries - 1));
  set(kAdminSubmission, (uint32_t)(uint64_t)admin_submissions);
  set(kAdminSubmission + 4, 0);
  set(kAdminCompletion, (uint32_t)(uint64_t)&admin_completions);
  set(kAdminCompletion + 4, 0);
  set(kConfiguration, 4u << 20 | 6u << 16 | 1);
  if (!wait_ready(1)) return false;

  if (!run(&admin, kIdentify, 1, (uint64_t)&identity, 0, 0, 0, 0)) return false;
  const uint32_t format = identity.bytes[26] & 15;
  const uint32_t block_shift = identity.bytes[128 + 4 * format + 2];
  if (block_shift < 9 || block_shift > 12) {
    fail("the NVMe disk's blocks have an unusual size: 2 to the power of", block_shift);
    return false;
  }
  blocks_of_4k_shift = 12 - block_shift;
  const uint64_t blocks = *(const uint64_t*)(const void*)&identity.bytes[0];
  shared->blocks = blocks >> blocks_of_4k_shift;
  if (shared->blocks < 2) {
    fail("the NVMe disk is too small", (uint32_t)blocks);
    return false;
  }
  if (!run(&admin, kCreateCompletionQueue, 0, (uint64_t)&completions, 0, (kEntries - 1) << 16 | 1,
           1, 0) ||
      !run(&admin, kCreateSubmissionQueue, 0, (uint64_t)submissions, 0, (kEntries - 1) << 16 | 1,
           1 << 16 | 1, 0)) {
    return false;
  }
  if (shadow) {
    clear(&buffer);
    clear(&event_index);
    if (!run(&admin, kDoorbellBuffer, 0, (uint64_t)&buffer, (uint64_t)&event_index, 0, 0, 0)) {
      return false;
    }
    with_buffer = true;
  }
  return check_disk();
}

static void put_read(uint32_t id) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  const uint64_t block = (random_state >> 11) % shared->blocks << blocks_of_4k_shift;
  const uint64_t entry = next_entry(&io, kRead, id);
  write32(entry + 4, 1);
  write64(entry + 24, (uint64_t)&data[id]);
  write32(entry + 40, (uint32_t)block);
  write32(entry + 44, (uint32_t)(block >> 32));
  write32(entry + 48, (1u << blocks_of_4k_shift) - 1);
}

// One ring of each doorbell for all that came in at once, as drivers that poll do.
bool nvme_read(uint32_t count, uint32_t depth) {
  if (depth == 0 || depth > kMaxDepth) {
    fail("no such queue depth", depth);
    return false;
  }
  uint32_t started = 0;
  uint32_t done = 0;
  for (; started < depth && started < count; ++started) put_read(started);
  ring(2, io.tail);
  uint64_t start = ticks();
  while (done < count) {
    if (!arrived(&io)) {
      if (ticks() - start > 30000000000u) {
        fail("an NVMe read got no completion", done);
        return false;
      }
      continue;
    }
    const uint32_t tail = io.tail;
    do {
      const int id = take(&io);
      if (id < 0) return false;
      ++done;
      if (started < count) {
        put_read((uint32_t)id);
        ++started;
      }
    } while (arrived(&io));
    if (io.tail != tail) ring(2, io.tail);
    ring(3, io.head);
    start = ticks();
  }
  return true;
}

bool nvme_close(void) {
  set(kConfiguration, 0);
  return wait_ready(0);
}
