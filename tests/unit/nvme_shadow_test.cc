// The doorbell buffer: NVMe 1.4 §5.7 and Annex B.5.
#include <atomic>
#include <chrono>
#include <thread>

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/unit/nvme_guest.h"

namespace outboard::nvme::test {
namespace {

constexpr u64 kShadowAt = kListsAt;
constexpr u64 kEventsAt = kListsAt + 0x1000;

ControllerOptions offering() {
  ControllerOptions options;
  options.identity.doorbell_buffer = true;
  return options;
}

Command buffer_config(u64 doorbells = kShadowAt, u64 events = kEventsAt) {
  Command command = Driver::admin(AdminOpcode::doorbell_buffer_config);
  command.pointer1 = doorbells;
  command.pointer2 = events;
  return command;
}

// A driver that keeps its doorbells in memory, as Linux does.
struct Guest : Driver {
  explicit Guest(u32 entries = 4) : Driver(one(memory_namespace(1 << 20)), offering()) {
    enable();
    REQUIRE(create_pair(1, entries) == Status::success);
    std::memset(dma.memory(kShadowAt, 0x2000).data(), 0, 0x2000);
    REQUIRE(run(0, buffer_config()).status == Status::success);
  }
  std::atomic_ref<u32> word(u64 page, u32 index) {
    return std::atomic_ref<u32>(*reinterpret_cast<u32*>(dma.memory(page + 4 * index, 4).data()));
  }
  u32 event(u32 index) { return word(kEventsAt, index).load(); }
  // B.5: whether the step from `old` to `value` passes `event`.
  static bool must_ring(u32 old, u32 value, u32 event) {
    return static_cast<u16>(value - event - 1) < static_cast<u16>(value - old);
  }
  // Stores the value; true when the controller wants to be told.
  bool tell(u32 index, u32 value) {
    const auto shadow = word(kShadowAt, index);
    const u32 old = shadow.load(std::memory_order_relaxed);
    shadow.store(value);
    return must_ring(old, value, word(kEventsAt, index).load());
  }
  static Command read() { return io(IoOpcode::read, 1, 0, 1); }
};

}  // namespace

TEST_CASE("NVMe 1.4 §5.15.2.2 OACS bit 8 and opcode 7Ch exist only where they are offered") {
  Driver plain(one(memory_namespace(1 << 20)));
  plain.enable();
  CHECK(plain.run(0, buffer_config()).status == Status::invalid_opcode);
  for (Driver* driver : {&plain}) {
    Command identify = Driver::admin(AdminOpcode::identify);
    identify.dw10 = 1;
    identify.pointer1 = kDataAt;
    CHECK(driver->run(0, identify).status == Status::success);
    CHECK(get<u16>(driver->data(), 256) == 0x002);
  }
  Guest guest;
  Command identify = Driver::admin(AdminOpcode::identify);
  identify.dw10 = 1;
  identify.pointer1 = kDataAt;
  CHECK(guest.run(0, identify).status == Status::success);
  CHECK(get<u16>(guest.data(), 256) == 0x102);
}

TEST_CASE("NVMe 1.4 §5.7 fields of Doorbell Buffer Config") {
  Driver guest(one(memory_namespace(1 << 20)), offering());
  guest.dma.add(0x4000'0000, 0x2000, false);
  guest.dma.add(0x5000'0000, 0x2000, true, false);
  guest.enable();
  CHECK(guest.run(0, buffer_config(kShadowAt + 4, kEventsAt)).status == Status::prp_offset_invalid);
  CHECK(guest.run(0, buffer_config(kShadowAt, kEventsAt + 8)).status == Status::prp_offset_invalid);
  CHECK(guest.run(0, buffer_config(kShadowAt, kShadowAt)).status == Status::invalid_field);
  CHECK(guest.run(0, buffer_config(0x7000'0000, kEventsAt)).status == Status::invalid_field);
  CHECK(guest.run(0, buffer_config(kShadowAt, 0x7000'0000)).status == Status::invalid_field);
  CHECK(guest.run(0, buffer_config(0x4000'0000, 0x4000'1000)).status == Status::invalid_field);
  CHECK(guest.run(0, buffer_config(0x5000'0000, 0x5000'1000)).status == Status::invalid_field);
  CHECK_FALSE(guest.controller.shadowed());
  CHECK(guest.run(0, buffer_config()).status == Status::success);
  CHECK(guest.controller.shadowed());
  // One that fails leaves the one before in place.
  CHECK(guest.run(0, buffer_config(0x7000'0000, kEventsAt)).status == Status::invalid_field);
  CHECK(guest.controller.shadowed());
}

TEST_CASE(
    "NVMe 1.4 B.5 with a buffer the I/O queues' doorbells are its values; the admin queue's are "
    "not") {
  Guest guest;
  guest.push(1, Guest::read());
  guest.ring(1);  // the register alone says nothing any more
  guest.turn_until_quiet();
  CHECK(guest.poll(1, false).empty());
  guest.tell(2, 1);
  guest.turn_until_quiet();
  CHECK(guest.poll(1, false).size() == 1);
  CHECK(guest.tell(3, 1) == false);
  Command identify = Driver::admin(AdminOpcode::identify);
  identify.dw10 = 1;
  identify.pointer1 = kDataAt;
  CHECK(guest.run(0, identify).status == Status::success);
}

TEST_CASE(
    "NVMe 1.4 B.5 a busy controller is told nothing; one that is about to sleep is told the next "
    "command") {
  Guest guest(8);
  CHECK(guest.controller.may_sleep());
  u32 tail = 0;
  guest.push(1, Guest::read());
  CHECK(guest.tell(2, ++tail));  // it slept
  guest.controller.turn();
  // Busy from here on, over the end of the ring and more than once round.
  u32 head = 0;
  for (int i = 0; i < 40; ++i) {
    guest.push(1, Guest::read());
    tail = (tail + 1) % 8;
    CHECK_FALSE(guest.tell(2, tail));
    guest.turn_until_quiet();
    for (std::size_t n = guest.poll(1, false).size(); n > 0; --n) {
      head = (head + 1) % 8;
      CHECK_FALSE(guest.tell(3, head));
    }
  }
  guest.turn_until_quiet();
  CHECK(guest.controller.may_sleep());
  CHECK(guest.event(2) == tail);
  CHECK(guest.tell(2, (tail + 1) % 8));
}

TEST_CASE("a controller that is faster than the guest's look at the EventIdx is not told either") {
  Guest guest(8);
  guest.turn_until_quiet();
  u32 tail = 0;
  u32 head = 0;
  for (int i = 0; i < 40; ++i) {
    const u32 count = 1 + static_cast<u32>(i) % 3;  // several commands may go by one doorbell
    for (u32 n = 0; n < count; ++n) guest.push(1, Guest::read());
    const auto old = tail;
    tail = (tail + count) % 8;
    guest.word(kShadowAt, 2).store(tail);
    guest.turn_until_quiet();
    CHECK_FALSE(Guest::must_ring(old, tail, guest.event(2)));
    CHECK(guest.poll(1, false).size() == count);
    const auto read = head;
    head = (head + count) % 8;
    guest.word(kShadowAt, 3).store(head);
    guest.turn_until_quiet();
    CHECK_FALSE(Guest::must_ring(read, head, guest.event(3)));
  }
}

TEST_CASE(
    "a command that comes between the last look and the EventIdx keeps the controller awake") {
  Guest guest;
  guest.turn_until_quiet();
  guest.push(1, Guest::read());
  guest.tell(2, 1);
  CHECK_FALSE(guest.controller.may_sleep());
  guest.turn_until_quiet();
  CHECK(guest.poll(1, false).size() == 1);
  CHECK(guest.controller.may_sleep());
  // A value that is none is reported once, and no reason to stay awake.
  guest.tell(2, 77);
  CHECK_FALSE(guest.controller.may_sleep());
  guest.turn_until_quiet();
  CHECK(guest.controller.may_sleep());
}

TEST_CASE("completions that wait for room: the guest is asked to tell what it has read") {
  Guest guest(4);
  guest.turn_until_quiet();
  for (u32 i = 1; i <= 3; ++i) guest.push(1, Guest::read());
  guest.tell(2, 3);
  guest.turn_until_quiet();
  CHECK(guest.controller.may_sleep());
  CHECK_FALSE(guest.tell(3, 0));  // nothing waits
  CHECK(guest.poll(1, false).size() == 3);
  guest.push(1, Guest::read());  // the completion queue is full
  guest.tell(2, 0);
  guest.turn_until_quiet();
  CHECK(guest.controller.may_sleep());
  CHECK(guest.event(3) == 0);
  CHECK(guest.tell(3, 3));
  CHECK_FALSE(guest.controller.may_sleep());
  guest.turn_until_quiet();
  CHECK(guest.poll(1, false).size() == 1);
}

TEST_CASE("queues that ran before there was a buffer go on where they were") {
  Driver guest(one(memory_namespace(1 << 20)), offering());
  guest.enable();
  REQUIRE(guest.create_pair(1, 8) == Status::success);
  REQUIRE(guest.create_pair(2, 8) == Status::success);
  std::memset(guest.dma.memory(kShadowAt, 0x2000).data(), 0, 0x2000);
  for (const u16 id : {u16{1}, u16{2}}) {
    for (int i = 0; i < 3; ++i) REQUIRE(guest.run(id, Guest::read()).status == Status::success);
  }
  // The guest has begun to keep queue 2 in the buffer.
  put<u32>(guest.dma.memory(kShadowAt, 4096), 16, 4);
  put<u32>(guest.dma.memory(kShadowAt, 4096), 20, 3);
  guest.push(2, Guest::read());
  REQUIRE(guest.run(0, buffer_config()).status == Status::success);
  CHECK(get<u32>(guest.dma.memory(kShadowAt, 4096), 8) == 3);
  CHECK(get<u32>(guest.dma.memory(kShadowAt, 4096), 12) == 3);
  guest.turn_until_quiet();
  CHECK(guest.poll(1, false).empty());
  CHECK(guest.poll(2, false).size() == 1);
}

TEST_CASE("a queue that is created starts at 0, whatever the buffer said") {
  Guest guest;
  put<u32>(guest.dma.memory(kShadowAt, 4096), 16, 3);
  put<u32>(guest.dma.memory(kShadowAt, 4096), 20, 3);
  REQUIRE(guest.create_pair(2, 4) == Status::success);
  guest.turn_until_quiet();
  CHECK(guest.poll(2, false).empty());
  CHECK(get<u32>(guest.dma.memory(kShadowAt, 4096), 16) == 0);
}

TEST_CASE("NVMe 1.4 §5.7 a controller reset drops the buffer; its pages are not touched after it") {
  for (const bool by_function : {false, true}) {
    CAPTURE(by_function);
    Guest guest;
    if (by_function) {
      guest.controller.reset();
    } else {
      guest.disable();
      guest.turn_until_quiet();
    }
    CHECK_FALSE(guest.controller.shadowed());
    const auto pages = guest.dma.memory(kShadowAt, 0x2000);
    std::memset(pages.data(), 0x5a, pages.size());
    guest.enable();
    REQUIRE(guest.create_pair(1, 4) == Status::success);
    CHECK(guest.run(1, Guest::read()).status == Status::success);
    CHECK(guest.controller.may_sleep());
    CHECK(std::ranges::all_of(pages, [](std::byte b) { return b == std::byte{0x5a}; }));
  }
}

TEST_CASE("memory that goes from under the buffer is fatal, and no reason to stay awake") {
  Guest guest;
  guest.dma.add(0x4000'0000, 0x2000);
  REQUIRE(guest.run(0, buffer_config(0x4000'0000, 0x4000'1000)).status == Status::success);
  guest.controller.before_window_change();
  guest.dma.remove(0x4000'0000);
  for (int i = 0; i < 3; ++i) guest.turn_until_quiet();
  CHECK((guest.read32(reg::csts) & kCstsFatal) != 0);
  CHECK(guest.controller.may_sleep());
}

// The guest runs on a thread of its own and rings only when EventIdx says so; the controller sleeps
// as often as it can. A wake-up that is lost leaves both waiting.
TEST_CASE("NVMe 1.4 B.5 no wake-up is lost between the guest's store and the controller's sleep") {
  using namespace std::chrono_literals;
  constexpr u32 kEntries = 4;
  constexpr int kCommands = 20000;
  Guest guest(kEntries);
  const int bell = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  std::atomic<bool> done = false;
  std::atomic<bool> lost = false;
  int rings = 0;

  const auto queue = guest.dma.memory(Driver::queue_at(1, false), kEntries * 64);
  const auto answers = guest.dma.memory(Driver::queue_at(1, true), kEntries * 16);
  std::thread vcpu([&] {
    u32 tail = 0;
    u32 head = 0;
    u16 phase = 1;
    u32 random = 1;
    for (int i = 0; i < kCommands && !lost; ++i) {
      Command command = Guest::read();
      command.id = static_cast<u16>(i);
      std::memcpy(queue.data() + 64 * tail, &command, 64);
      tail = (tail + 1) % kEntries;
      if (guest.tell(2, tail)) {
        ++rings;
        (void)::eventfd_write(bell, 1);
      }
      const std::atomic_ref<u32> last(*reinterpret_cast<u32*>(answers.data() + 16 * head + 12));
      const auto limit = std::chrono::steady_clock::now() + 20s;
      while ((last.load(std::memory_order_acquire) >> 16 & 1) != phase) {
        if (std::chrono::steady_clock::now() > limit) {
          lost = true;
          break;
        }
        std::this_thread::yield();
      }
      head = (head + 1) % kEntries;
      if (head == 0) phase ^= 1;
      if (guest.tell(3, head)) (void)::eventfd_write(bell, 1);
      // Meets the controller at another point of its way to sleep each time.
      random = random * 1664525 + 1013904223;
      for (volatile u32 spin = random >> 22; spin > 0;) spin = spin - 1;
    }
    done = true;
    (void)::eventfd_write(bell, 1);
  });

  int sleeps = 0;
  while (!done) {
    while (guest.controller.turn()) {
    }
    if (!guest.controller.may_sleep()) continue;
    ++sleeps;
    pollfd ready{bell, POLLIN, 0};
    ::poll(&ready, 1, 30000);
    eventfd_t value = 0;
    (void)::eventfd_read(bell, &value);
  }
  vcpu.join();
  ::close(bell);
  CHECK_FALSE(lost);
  CHECK(sleeps > 0);
  CHECK(rings > 0);
}

}  // namespace outboard::nvme::test
