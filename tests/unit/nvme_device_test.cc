// The device as a client of the socket sees it: a real connection, the project's own client, the
// program's event loop in a thread.
#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/nvme_guest.h"
#include "tests/unit/nvme_program.h"
#include "vfio_user/client.h"

namespace outboard::nvme::test {
namespace {

using vfio_user::Client;
using vfio_user::DmaWindow;
using vfio_user::UniqueFd;

constexpr u64 kGuestSize = 4 << 20;

struct Memory {
  Memory() : fd(memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
    REQUIRE(ftruncate(fd.get(), kGuestSize) == 0);
    void* base = mmap(nullptr, kGuestSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    REQUIRE(base != MAP_FAILED);
    bytes = {static_cast<std::byte*>(base), kGuestSize};
  }
  ~Memory() { munmap(bytes.data(), bytes.size()); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  UniqueFd fd;
  std::span<std::byte> bytes;
};

// A driver on the far side of the socket.
class Guest {
 public:
  explicit Guest(const std::string& path, bool message_window = false, bool twin = true) {
    vfio_user::ClientOptions options;
    options.offer_twin_socket = twin;
    auto connected = Client::connect(path, options);
    // A server that has not noticed yet that its last client is gone closes the next at once.
    for (int tries = 0; !connected && tries < 1000; ++tries) {
      const timespec pause{0, 2'000'000};
      nanosleep(&pause, nullptr);
      connected = Client::connect(path, options);
    }
    REQUIRE_MESSAGE(connected.has_value(), (connected ? "" : connected.error().message));
    client = std::move(*connected);
    const DmaWindow window{.address = 0x10'0000,
                           .size = kGuestSize,
                           .fd = message_window ? -1 : memory.fd.get(),
                           .host = memory.bytes};
    auto attached = client->attach({&window, 1});
    REQUIRE_MESSAGE(attached.has_value(), (attached ? "" : attached.error().message));
    device = std::move(*attached);
    for (UniqueFd& vector : vectors) vector.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (device.regions[0].mappable) {
      void* page =
          mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, device.regions[0].area_fd(0),
               static_cast<off_t>(device.regions[0].file_offset + 0x1000));
      REQUIRE(page != MAP_FAILED);
      doorbells = static_cast<u32*>(page);
    }
  }
  ~Guest() {
    if (doorbells != nullptr) munmap(doorbells, 4096);
  }
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;

  u32 read32(u64 offset, u32 region = 0) {
    u32 value = 0;
    const auto done =
        client->region_read(region, offset, std::as_writable_bytes(std::span(&value, 1)));
    REQUIRE(done.has_value());
    return value;
  }
  void write32(u64 offset, u32 value, u32 region = 0) {
    REQUIRE(client->region_write(region, offset, std::as_bytes(std::span(&value, 1))).has_value());
  }
  void write16(u64 offset, u16 value, u32 region = 7) {
    REQUIRE(client->region_write(region, offset, std::as_bytes(std::span(&value, 1))).has_value());
  }
  void arm_msix() {
    const int fds[] = {vectors[0].get(), vectors[1].get()};
    REQUIRE(client->arm_irqs(2, 0, fds).has_value());
    write16(0x52, 0x8000);
  }
  void enable() {
    tail = head = 0;
    phase = 1;
    std::memset(memory.bytes.data(), 0, 0x4000);
    write32(reg::aqa, 15u << 16 | 15);
    write32(reg::asq, 0x10'0000);
    write32(reg::asq + 4, 0);
    write32(reg::acq, 0x10'1000);
    write32(reg::acq + 4, 0);
    write32(reg::cc, 6u << 16 | 4u << 20 | 1);
    REQUIRE(read32(reg::csts) == kCstsReady);
  }
  void ring(u32 index, u32 value) {
    if (doorbells != nullptr) {
      std::atomic_ref<u32>(doorbells[index]).store(value);
    } else {
      write32(reg::doorbells + 4 * index, value);
    }
  }
  void push_identify() {
    Command command = Driver::admin(AdminOpcode::identify);
    command.id = static_cast<u16>(tail + 100);
    command.dw10 = 1;
    command.pointer1 = 0x10'2000;
    std::memcpy(memory.bytes.data() + 64 * tail, &command, 64);
    tail = (tail + 1) % 16;
    ring(0, tail);
  }
  void run(Command command) {
    command.id = static_cast<u16>(tail + 100);
    std::memcpy(memory.bytes.data() + 64 * tail, &command, 64);
    tail = (tail + 1) % 16;
    ring(0, tail);
    REQUIRE(completed());
  }
  // Queues 1 of 16 entries at 0x10'5000 and 0x10'6000, with vector 1.
  void create_pair() {
    Command cq = Driver::admin(AdminOpcode::create_io_cq);
    cq.pointer1 = 0x10'5000;
    cq.dw10 = 15u << 16 | 1;
    cq.dw11 = 1u << 16 | 3;
    run(cq);
    Command sq = Driver::admin(AdminOpcode::create_io_sq);
    sq.pointer1 = 0x10'6000;
    sq.dw10 = 15u << 16 | 1;
    sq.dw11 = 1u << 16 | 1;
    run(sq);
  }
  // At 0x10'7000 and 0x10'8000.
  void set_doorbell_buffer() {
    Command buffer = Driver::admin(AdminOpcode::doorbell_buffer_config);
    buffer.pointer1 = 0x10'7000;
    buffer.pointer2 = 0x10'8000;
    run(buffer);
  }
  // Waits by polling the completion entry, as a polled driver does; serves the server's messages.
  bool completed(int tries = 5000) {
    for (; tries > 0; --tries) {
      client->service();
      const auto* entry = memory.bytes.data() + 0x1000 + 16 * head;
      u32 last;
      last =
          std::atomic_ref<u32>(*reinterpret_cast<u32*>(const_cast<std::byte*>(entry) + 12)).load();
      if ((last >> 16 & 1) == phase) {
        head = (head + 1) % 16;
        if (head == 0) phase ^= 1;
        ring(1, head);
        return (last >> 17 & 0x7ff) == 0;
      }
      const timespec pause{0, 1'000'000};
      nanosleep(&pause, nullptr);
    }
    return false;
  }
  bool signalled(int fd, int milliseconds = 5000) {
    pollfd event{fd, POLLIN, 0};
    if (poll(&event, 1, milliseconds) != 1) return false;
    eventfd_t value;
    return eventfd_read(fd, &value) == 0;
  }

  Memory memory;
  std::unique_ptr<Client> client;
  vfio_user::DeviceDescription device;
  std::array<UniqueFd, 2> vectors;
  u32* doorbells = nullptr;
  u32 tail = 0, head = 0, phase = 1;
};

}  // namespace

TEST_CASE("The configuration space is that of an NVMe endpoint with PM, MSI-X and PCIe") {
  ConfigSpace config(65);
  std::array<std::byte, 256> bytes;
  config.read(0, bytes);
  CHECK((get<u32>(bytes, 0x08) >> 8) == 0x010802);
  CHECK((get<u16>(bytes, 0x06) & 0x10) != 0);
  std::vector<u8> capabilities;
  for (u8 at = get<u8>(bytes, 0x34); at != 0; at = get<u8>(bytes, at + 1u)) {
    capabilities.push_back(get<u8>(bytes, at));
    REQUIRE(capabilities.size() < 10);
  }
  CHECK(capabilities == std::vector<u8>{0x01, 0x11, 0x10});
  CHECK((get<u16>(bytes, 0x52) & 0x7ff) == 64);
  // BAR0 is 16 KiB, 64 bits; BAR4 8 KiB, 32 bits (PCI 3.0 §6.2.5.1).
  const u32 ones = ~u32{0};
  for (const auto& [offset, size] :
       {std::pair{0x10u, 0xffff'c004u}, std::pair{0x14u, ~0u}, std::pair{0x18u, 0u},
        std::pair{0x20u, 0xffff'e000u}, std::pair{0x24u, 0u}, std::pair{0x30u, 0u}}) {
    CHECK_FALSE(config.write(offset, std::as_bytes(std::span(&ones, 1))));
    config.read(0, bytes);
    CHECK(get<u32>(bytes, offset) == size);
  }
  // Identity, capability headers and whatever is not named do not change.
  std::array<std::byte, 4096> before;
  config.reset();
  config.read(0, before);
  std::array<std::byte, 4096> all;
  all.fill(std::byte{0xff});
  CHECK(config.write(0, all));  // a function-level reset was among it
  config.read(0, all);
  for (const std::size_t offset : {0x00u, 0x08u, 0x2cu, 0x34u, 0x40u, 0x50u, 0x54u, 0x60u, 0x64u}) {
    CHECK(std::memcmp(all.data() + offset, before.data() + offset, 2) == 0);
  }
  CHECK((get<u16>(all, 0x68) & 0x8000) == 0);  // the bit reads as zero
}

TEST_CASE("A client attaches, enables, sends a command and is interrupted; in each doorbell mode") {
  for (const DoorbellMode mode : {DoorbellMode::page, DoorbellMode::trap, DoorbellMode::shadow}) {
    INFO("mode " << static_cast<int>(mode));
    Program program(mode);
    {
      Guest guest(program.path);
      CHECK(guest.device.regions[0].size == kBar0Size);
      CHECK(guest.device.regions[0].mappable == (mode == DoorbellMode::page));
      CHECK(guest.device.regions[4].size == kMsixBarSize);
      CHECK(guest.device.irqs[0].count == 1);
      CHECK(guest.device.irqs[2].count == 65);
      CHECK(guest.device.resettable);
      guest.arm_msix();
      guest.enable();
      for (int i = 0; i < 40; ++i) {  // twice around the rings
        guest.push_identify();
        REQUIRE(guest.completed());
      }
      CHECK(guest.signalled(guest.vectors[0].get()));
      CHECK(get<u32>(guest.memory.bytes, 0x2000 + 80) == 0x10400);
    }
    program.end();
    CHECK_FALSE(program.failed);
    CHECK(program.counters.admin[6] == 40);
    struct stat status {};
    CHECK(stat(program.path.c_str(), &status) != 0);  // the socket is gone
  }
}

TEST_CASE(
    "C62 the sleeping server is woken by an eventfd for I/O doorbells, offered while a buffer is "
    "set") {
  Program program(DoorbellMode::shadow);
  {
    Guest guest(program.path);
    CHECK_FALSE(guest.device.regions[0].mappable);
    REQUIRE(guest.device.regions[0].io_fds.size() == 1);  // the reserved doorbell
    CHECK(guest.device.regions[0].io_fds[0].offset == 0x1ffc);
    guest.arm_msix();
    guest.enable();
    const auto offered = [&] { return guest.client->region_io_fds(0).value(); };

    guest.create_pair();
    CHECK(offered().size() == 1);
    guest.set_doorbell_buffer();

    // What a client finds after the write of the admin queue's head.
    const auto ranges = offered();
    REQUIRE(ranges.size() == 2);
    CHECK(ranges[1].offset == 0x1008);
    CHECK(ranges[1].size == 4);
    const auto bytes = guest.client->counters().bytes_sent;
    for (u32 i = 0; i < 100; ++i) {
      Command read = Driver::io(IoOpcode::read, 1, 0, 1);
      read.pointer1 = 0x10'9000;
      std::memcpy(guest.memory.bytes.data() + 0x6000 + 64 * (i % 16), &read, 64);
      const std::atomic_ref<u32> value(*reinterpret_cast<u32*>(guest.memory.bytes.data() + 0x7008));
      const std::atomic_ref<u32> event(*reinterpret_cast<u32*>(guest.memory.bytes.data() + 0x8008));
      const auto old = static_cast<u16>(value.load());
      const auto next = static_cast<u16>((i + 1) % 16);
      value.store(next);
      const auto at = static_cast<u16>(event.load());
      if (static_cast<u16>(next - at - 1) < static_cast<u16>(next - old)) {
        REQUIRE(eventfd_write(ranges[1].fd.get(), 1) == 0);
      }
      REQUIRE(guest.signalled(guest.vectors[1].get()));
      std::atomic_ref<u32>(*reinterpret_cast<u32*>(guest.memory.bytes.data() + 0x700c)).store(next);
    }
    CHECK(guest.client->counters().bytes_sent == bytes);

    guest.write32(reg::cc, 6u << 16 | 4u << 20);  // a controller reset
    CHECK(offered().size() == 1);
  }
  program.end();
  CHECK(program.counters.io[2] == 100);
  CHECK(program.counters.doorbell_wakes > 0);
  CHECK(program.counters.doorbell_wakes <= 100);
}

TEST_CASE(
    "An idle server uses no processor time and wakes up for nothing, with a doorbell buffer and "
    "without") {
  for (const bool buffer : {false, true}) {
    CAPTURE(buffer);
    Program program(DoorbellMode::shadow);
    Guest guest(program.path);
    guest.arm_msix();
    guest.enable();
    guest.push_identify();
    REQUIRE(guest.completed());
    if (buffer) guest.set_doorbell_buffer();
    program.wait_until_asleep();
    const auto time = program.processor_time();
    const auto sleeps = program.sleeps();
    const timespec second{1, 0};
    nanosleep(&second, nullptr);
    CHECK(program.processor_time() == time);
    CHECK(program.sleeps() == sleeps);
    guest.push_identify();  // it was not dead
    CHECK(guest.completed());
    CHECK(program.sleeps() > sleeps);
  }
}

TEST_CASE("Guest memory without an fd is reached by messages, with a twin socket and without") {
  for (const bool twin : {false, true}) {
#ifdef __SANITIZE_THREAD__
    // The twin's thread copies guest memory in an order that only the two sockets establish.
    if (twin) continue;
#endif
    INFO("twin " << twin);
    Program program(DoorbellMode::trap);
    Guest guest(program.path, true, twin);
    guest.arm_msix();
    guest.enable();
    for (int i = 0; i < 20; ++i) {
      guest.push_identify();
      REQUIRE(guest.completed());
    }
    CHECK(get<u32>(guest.memory.bytes, 0x2000 + 80) == 0x10400);
  }
}

TEST_CASE("PCI 3.0 §2.2.6 the pin is level-triggered: raised again after unmask until consumed") {
  Program program(DoorbellMode::page);
  Guest guest(program.path);
  UniqueFd pin(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const int fd = pin.get();
  REQUIRE(guest.client->arm_irqs(0, 0, {&fd, 1}).has_value());
  guest.enable();
  guest.push_identify();
  REQUIRE(guest.signalled(fd));
  CHECK_FALSE(guest.signalled(fd, 20));
  CHECK((guest.read32(0x04, 7) >> 19 & 1) == 1);  // STATUS: interrupt pending
  REQUIRE(guest.client->unmask_irqs(0, 0, 1).has_value());
  REQUIRE(guest.signalled(fd));  // the entry is still unread
  REQUIRE(guest.completed());    // now it is read, and the doorbell rung
  REQUIRE(guest.client->unmask_irqs(0, 0, 1).has_value());
  CHECK_FALSE(guest.signalled(fd, 20));
  CHECK((guest.read32(0x04, 7) >> 19 & 1) == 0);
  // COMMAND.INTx disable holds it back, and lets go of it.
  guest.write16(0x04, 1u << 10);
  guest.push_identify();
  CHECK_FALSE(guest.signalled(fd, 50));
  guest.write16(0x04, 0);
  CHECK(guest.signalled(fd));
}

TEST_CASE("A vector raised before the client has armed it is pending, and delivered when it is") {
  Program program(DoorbellMode::page);
  Guest guest(program.path);
  guest.write16(0x52, 0x8000);  // MSI-X enabled, no eventfd yet
  guest.enable();
  guest.push_identify();
  REQUIRE(guest.completed());
  for (int i = 0; i < 5000 && guest.read32(kMsixPbaOffset, 4) == 0; ++i) {
  }
  CHECK(guest.read32(kMsixPbaOffset, 4) == 1);
  guest.arm_msix();
  CHECK(guest.signalled(guest.vectors[0].get()));
  CHECK(guest.read32(kMsixPbaOffset, 4) == 0);
  // The table keeps what is written, the pending bits do not.
  guest.write32(0x10, 0xfee0'0000, 4);
  CHECK(guest.read32(0x10, 4) == 0xfee0'0000);
  guest.write32(kMsixPbaOffset, ~0u, 4);
  CHECK(guest.read32(kMsixPbaOffset, 4) == 0);
}

TEST_CASE("DEVICE_RESET and a function-level reset end in the state of power-on") {
  for (const bool function : {false, true}) {
    INFO("FLR " << function);
    Program program(DoorbellMode::page);
    Guest guest(program.path);
    guest.arm_msix();
    for (int round = 0; round < 3; ++round) {
      guest.enable();
      guest.push_identify();
      REQUIRE(guest.completed());
      if (function) {
        guest.write16(0x68, 0x8000);
      } else {
        REQUIRE(guest.client->reset().has_value());
      }
      CHECK(guest.read32(reg::csts) == 0);
      CHECK(guest.read32(reg::cc) == 0);
      CHECK((guest.read32(0x50, 7) >> 31) == 0);  // MSI-X disabled again
      CHECK(guest.doorbells[0] == 0);
      guest.write16(0x52, 0x8000);
    }
  }
}

TEST_CASE("A window that is taken back is not touched again; without it the controller says so") {
  Program program(DoorbellMode::page);
  Guest guest(program.path);
  guest.arm_msix();
  guest.enable();
  guest.push_identify();
  REQUIRE(guest.completed());
  REQUIRE(guest.client->dma_unmap(0x10'0000, kGuestSize).has_value());
  std::memset(guest.memory.bytes.data(), 0x5a, 0x8000);
  guest.ring(0, 5);
  for (int i = 0; i < 5000 && (guest.read32(reg::csts) & kCstsFatal) == 0; ++i) {
  }
  CHECK((guest.read32(reg::csts) & kCstsFatal) != 0);
  for (std::size_t i = 0; i < 0x8000; ++i) {
    if (guest.memory.bytes[i] != std::byte{0x5a}) FAIL("written at " << i);
  }
}

TEST_CASE("One client at a time; the next finds a fresh controller") {
  Program program(DoorbellMode::page);
  {
    Guest first(program.path);
    first.arm_msix();
    first.enable();
    CHECK_FALSE(Client::connect(program.path).has_value());
    first.push_identify();
    CHECK(first.completed());
  }
  Guest second(program.path);
  CHECK(second.read32(reg::cc) == 0);
  CHECK(second.read32(reg::csts) == 0);
  second.arm_msix();
  second.enable();
  second.push_identify();
  CHECK(second.completed());
}

TEST_CASE("An idle server uses nearly no processor time, in either mode") {
  for (const DoorbellMode mode : {DoorbellMode::page, DoorbellMode::trap}) {
    INFO("trap " << (mode == DoorbellMode::trap));
    Program program(mode);
    Guest guest(program.path);
    guest.arm_msix();
    guest.enable();
    guest.push_identify();
    REQUIRE(guest.completed());
    const timespec settle{0, 50'000'000};
    nanosleep(&settle, nullptr);
    timespec before{};
    timespec after{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    const timespec second{0, 500'000'000};
    nanosleep(&second, nullptr);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    const double used = static_cast<double>(after.tv_sec - before.tv_sec) +
                        static_cast<double>(after.tv_nsec - before.tv_nsec) / 1e9;
    MESSAGE("CPU seconds in half a second idle: " << used);
    CHECK(used < 0.1);  // generous: sanitizers and a loaded machine
    // And it still answers at once.
    guest.push_identify();
    CHECK(guest.completed());
  }
}

TEST_CASE("The program ends in order while a client is attached and busy") {
  for (const DoorbellMode mode : {DoorbellMode::page, DoorbellMode::trap}) {
    Program program(mode);
    Guest guest(program.path);
    guest.arm_msix();
    guest.enable();
    for (int i = 0; i < 5; ++i) guest.push_identify();
    program.end();
    CHECK_FALSE(program.failed);
    CHECK_FALSE(guest.client->region_write(0, 0, std::array<std::byte, 4>{}).has_value());
  }
}

TEST_CASE("The socket appears whole, replaces a dead one, and refuses what is in the way") {
  const std::string path = socket_path();
  {
    auto first = PublishedSocket::create(path);
    REQUIRE(first.has_value());
    auto second = PublishedSocket::create(path);
    REQUIRE_FALSE(second.has_value());
    CHECK(second.error().message.find(path) != std::string::npos);
  }
  CHECK(access(path.c_str(), F_OK) != 0);
  FILE* file = std::fopen(path.c_str(), "w");
  REQUIRE(file != nullptr);
  std::fclose(file);
  CHECK_FALSE(PublishedSocket::create(path).has_value());
  unlink(path.c_str());
  const auto missing = PublishedSocket::create("/nonexistent/s");
  REQUIRE_FALSE(missing.has_value());
  CHECK(missing.error().message.find("'/nonexistent/s'") != std::string::npos);
  CHECK_FALSE(PublishedSocket::create(std::string(200, 'x')).has_value());
}

}  // namespace outboard::nvme::test
