// The guest of `outboard-bench access`: does what the shared page says and times it.
#include "guest.h"
#include "nvme.h"

volatile struct Shared* shared;

static uint64_t board, target, scratch;
static uint32_t memory_word;

void* memcpy(void* to, const void* from, size_t size);
void* memset(void* to, int value, size_t size);
int guest_main(const uint32_t* start_info);

void* memcpy(void* to, const void* from, size_t size) {
  void* result = to;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size)::"memory");
  return result;
}

void* memset(void* to, int value, size_t size) {
  void* result = to;
  __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
  return result;
}

void fail(const char* reason, uint32_t detail) {
  if (shared->failed != 0) return;
  uint32_t i = 0;
  for (; reason[i] != 0 && i + 1 < sizeof shared->reason; ++i) shared->reason[i] = reason[i];
  shared->reason[i] = 0;
  shared->detail = detail;
  shared->failed = 1;
}

static void wait_for_wake(uint32_t before) {
  const uint64_t start = ticks();
  while (shared->wakes == before) {
    if (ticks() - start < 30000000000u) continue;
    fail("nobody woke up", before);
    return;
  }
}

static void operate(uint32_t operation, uint32_t inner) {
  switch (operation) {
    case kTrappedRead:
      for (uint32_t i = 0; i < inner; ++i) (void)read32(target + kReadRegister);
      break;
    case kPostedWrite:
      for (uint32_t i = 0; i < inner; ++i) write32(target + kWriteRegister, i);
      break;
    case kBell:
      for (uint32_t i = 0; i < inner; ++i) write32(board + kBellRegister, i);
      break;
    case kBellToWake:
      for (uint32_t i = 0; i < inner && shared->failed == 0; ++i) {
        const uint32_t before = shared->wakes;
        write32(board + kBellRegister, i);
        wait_for_wake(before);
      }
      break;
    case kMappedStore:
      for (uint32_t i = 0; i < inner; ++i) write32(scratch, i);
      break;
    case kMemoryStore:
      for (uint32_t i = 0; i < inner; ++i) write32((uint64_t)&memory_word, i);
      break;
    case kNvmeRead:
      nvme_read(inner, shared->depth);
      break;
    case kNvmeOpen:
      nvme_open(shared->slot, (shared->flags & kWantShadow) != 0);
      break;
    case kNvmeClose:
      nvme_close();
      break;
    default:
      fail("an unknown operation", operation);
      break;
  }
}

static void obey(void) {
  const uint32_t operation = shared->operation;
  const uint32_t samples = shared->samples;
  const uint32_t inner = shared->inner;
  const uint64_t gap = shared->gap;
  volatile uint32_t* times = (volatile uint32_t*)((uint64_t)shared + kTicksOffset);
  for (uint32_t i = 0; i < samples && i < kMaxSamples && shared->failed == 0; ++i) {
    const uint64_t begin = ticks();
    operate(operation, inner);
    const uint64_t end = ticks();
    times[i] = (uint32_t)(end - begin);
    if (gap == 0) continue;
    while (ticks() - end < gap) relax();
  }
}

static void find_devices(void) {
  for (uint32_t slot = 0; slot < 32; ++slot) {
    const uint32_t id = config_read(slot, 0);
    if ((id & 0xffff) != kBenchVendor) continue;
    if (id >> 16 == kBoardDevice) {
      config_write(slot, 4, 6);
      board = bar_address(slot, 0);
      shared = (volatile struct Shared*)bar_address(slot, 2);
    } else if (id >> 16 == kTargetDevice) {
      config_write(slot, 4, 6);
      target = bar_address(slot, 0);
    }
  }
}

int guest_main(const uint32_t* start_info) {
  if (*start_info == kBareMagic) {
    shared = (volatile struct Shared*)kBareShared;
    board = kBareBoard;
    target = kBareTarget;
  } else {
    find_devices();
  }
  if (board == 0) return 1;
  scratch = (uint64_t)shared + kScratchOffset;
  while (read32(board + kNextRegister) != 0) {
    obey();
    shared->end = ticks();
  }
  outb(0x600, (5 << 2) | 0x20);  // outboard's power-off
  return 0;
}
