// When a successor goes on, and when it must not: the client's side of `--state`.
#include <string>
#include <thread>

#include <sys/mman.h>

#include "tests/unit/nvme_victim.h"
#include "vfio_user/client.h"

namespace outboard::nvme::test {
namespace {

using vfio_user::Client;
using vfio_user::UniqueFd;

constexpr u64 kAt = 0x10'0000;
constexpr u64 kBytes = 1 << 20;

struct Files {
  Files() : image(socket_path() + ".img"), state(socket_path() + ".state") {
    const UniqueFd fd(open(image.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    REQUIRE(ftruncate(fd.get(), 1 << 20) == 0);
  }
  ~Files() {
    unlink(image.c_str());
    unlink(state.c_str());
  }
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;
  VictimOptions options(DoorbellMode mode = DoorbellMode::trap) const {
    return {.image = image, .state = state, .mode = mode};
  }
  const std::string image, state;
};

struct GuestMemory {
  GuestMemory() : fd(memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
    REQUIRE(ftruncate(fd.get(), kBytes) == 0);
    REQUIRE(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK) == 0);
    void* base = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    REQUIRE(base != MAP_FAILED);
    bytes = {static_cast<std::byte*>(base), kBytes};
  }
  ~GuestMemory() { munmap(bytes.data(), bytes.size()); }
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;
  UniqueFd fd;
  std::span<std::byte> bytes;
};

// One connection; the admin queues at the start of guest memory, vector 0 armed.
struct Session {
  Session(Victim& victim, GuestMemory& guest, bool asks_for_resume = true) : memory(guest) {
    REQUIRE(victim.ready());
    vfio_user::ClientOptions options;
    options.offer_twin_socket = false;
    options.offered.resume_supported = asks_for_resume;
    auto connected = Client::connect(victim.path, options);
    REQUIRE(connected.has_value());
    client = std::move(*connected);
    const vfio_user::DmaWindow window{
        .address = kAt, .size = kBytes, .fd = guest.fd.get(), .host = guest.bytes};
    REQUIRE(client->attach({&window, 1}).has_value());
  }
  bool resumed() const { return client->server().resume.value().resumed; }
  void config(u64 offset, u16 value) {
    REQUIRE(client->region_write(7, offset, std::as_bytes(std::span(&value, 1))).has_value());
  }
  void write32(u64 offset, u32 value) {
    REQUIRE(client->region_write(0, offset, std::as_bytes(std::span(&value, 1))).has_value());
  }
  u32 read32(u64 offset) {
    u32 value = 0;
    REQUIRE(client->region_read(0, offset, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  void arm() {
    const int fd = vector.get();
    REQUIRE(client->arm_irqs(2, 0, {&fd, 1}).has_value());
    config(0x52, 0x8000);
  }
  void enable() {
    config(0x04, 0x0006);
    write32(reg::aqa, 15u << 16 | 15);
    write32(reg::asq, kAt);
    write32(reg::acq, kAt + 0x1000);
    write32(reg::cc, 6u << 16 | 4u << 20 | 1);
    REQUIRE(read32(reg::csts) == kCstsReady);
  }
  // Identify as the admin queue's command number `n`, from 0; the doorbell is the caller's.
  void put_identify(u32 n) {
    Command command = Driver::admin(AdminOpcode::identify);
    command.id = static_cast<u16>(n);
    command.dw10 = 1;
    command.pointer1 = kAt + 0x2000;
    std::memcpy(memory.bytes.data() + 64u * n, &command, 64);
  }
  bool completed(u32 n) {
    u32 last;
    std::memcpy(&last, memory.bytes.data() + 0x1000 + 16 * n + 12, 4);
    return (last >> 16 & 1) == 1;
  }
  bool signalled(int milliseconds = 5000) {
    pollfd event{vector.get(), POLLIN, 0};
    eventfd_t value;
    return poll(&event, 1, milliseconds) == 1 && eventfd_read(vector.get(), &value) == 0;
  }

  GuestMemory& memory;
  UniqueFd vector{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  std::unique_ptr<Client> client;
};

void kill(Victim& victim) {
  victim.kill();
  victim.wait();
}

}  // namespace

TEST_CASE("A successor stands still until guest memory and bus mastering are there, then goes on") {
  const Files files;
  GuestMemory memory;
  std::string id;
  {
    Victim victim(files.options());
    Session session(victim, memory);
    CHECK_FALSE(session.resumed());
    id = session.client->server().resume->id;
    session.enable();
    session.put_identify(0);
    kill(victim);
  }
  Victim victim(files.options());
  Session session(victim, memory);
  CHECK(session.resumed());
  CHECK(session.client->server().resume->id == id);
  session.write32(reg::doorbells, 1);  // what nobody has answered
  session.arm();
  CHECK(session.signalled());  // without cause: the last one may have been lost
  CHECK(session.read32(reg::csts) == kCstsReady);
  CHECK(session.read32(reg::cc) == (6u << 16 | 4u << 20 | 1));
  for (int i = 0; i < 100; ++i) session.read32(reg::csts);
  CHECK_FALSE(session.completed(0));
  session.config(0x04, 0x0006);
  CHECK(session.signalled());
  CHECK(session.completed(0));
  CHECK(get<u32>(memory.bytes, 0x2000 + 80) == kVersion14);
}

TEST_CASE(
    "Another guest's memory, a reset, a client that left in order, or one that knows nothing of "
    "resuming: nothing is gone on with") {
  enum class How { other_memory, device_reset, left, ignorant };
  for (const How how : {How::other_memory, How::device_reset, How::left, How::ignorant}) {
    CAPTURE(static_cast<int>(how));
    const Files files;
    GuestMemory memory;
    {
      Victim victim(files.options());
      Session session(victim, memory);
      session.enable();
      session.put_identify(0);
      if (how == How::left) {
        session.client.reset();
        victim.ask_to_end();
        CHECK(victim.wait() == 0);
      } else {
        kill(victim);
      }
    }
    Victim victim(files.options());
    GuestMemory others;
    Session session(victim, how == How::other_memory ? others : memory, how != How::ignorant);
    if (how == How::ignorant) {
      CHECK_FALSE(session.client->server().resume);
    } else {
      CHECK(session.resumed() == (how != How::left));
    }
    if (how == How::device_reset) REQUIRE(session.client->reset().has_value());
    CHECK(session.read32(reg::csts) == 0);
    CHECK(session.read32(reg::cc) == 0);
    session.arm();
    if (how == How::ignorant) CHECK_FALSE(session.signalled(0));  // no vector without a cause
    session.config(0x04, 0x0006);
    for (int i = 0; i < 100; ++i) session.read32(reg::csts);
    CHECK(get<u32>(memory.bytes, 0x1000 + 12) == 0);  // no completion in anybody's memory
    session.enable();
    session.put_identify(0);
    session.write32(reg::doorbells, 1);
    for (int i = 0; i < 5000 && !session.completed(0); ++i) session.read32(reg::csts);
    CHECK(session.completed(0));
  }
}

TEST_CASE("A client that fails before the successor goes on may come again") {
  const Files files;
  GuestMemory memory;
  {
    Victim victim(files.options());
    Session session(victim, memory);
    session.enable();
    kill(victim);
  }
  Victim victim(files.options());
  Session(victim, memory).client.reset();
  // The pipe has said "ready" once; the connection is what counts now.
  auto client = Client::connect(victim.path);
  while (!client) client = Client::connect(victim.path);
  CHECK((*client)->server().resume.value().resumed);
}

TEST_CASE("A client that knows nothing of resuming, and only looks, leaves the state where it is") {
  const Files files;
  GuestMemory memory;
  {
    Victim victim(files.options());
    Session session(victim, memory);
    session.enable();
    kill(victim);
  }
  Victim victim(files.options());
  REQUIRE(victim.ready());
  vfio_user::ClientOptions ignorant;
  ignorant.offered.resume_supported = false;
  {
    auto looks = Client::connect(victim.path, ignorant);
    REQUIRE(looks.has_value());
    REQUIRE((*looks)->attach({}).has_value());
  }
  auto client = Client::connect(victim.path);
  while (!client) client = Client::connect(victim.path);
  CHECK((*client)->server().resume.value().resumed);
}

TEST_CASE("A lock on the image is waited for, with progress, and no longer than said") {
  const Files files;
  auto holder = FileImage::open(files.image, false, 512);
  REQUIRE(holder.has_value());
  std::vector<std::string> lines;
  const LockWait wait{std::chrono::milliseconds(1200),
                      [&](const std::string& line) { lines.push_back(line); }};
  const auto refused = FileImage::open(files.image, false, 512, wait);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().find("is in use") != std::string::npos);
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].find("(1 s of 1)") != std::string::npos);
  const LockWait longer{std::chrono::seconds(20), {}};
  std::thread release([&] {
    const timespec pause{0, 50'000'000};
    nanosleep(&pause, nullptr);
    holder->reset();
  });
  CHECK(FileImage::open(files.image, false, 512, longer).has_value());
  release.join();
}

TEST_CASE("outboard-nvme itself waits without a state file, too, for requests of a killed server") {
  const Files files;
  auto holder = FileImage::open(files.image, false, 512);
  REQUIRE(holder.has_value());
  VictimOptions options = files.options();
  options.state.clear();
  options.program = OUTBOARD_NVME_PROGRAM;
  Victim victim(options);
  pollfd death{victim.death_fd(), POLLIN, 0};
  CHECK(poll(&death, 1, 500) == 0);  // ms; it would have been refused long ago
  holder->reset();
  CHECK(victim.ready());
}

}  // namespace outboard::nvme::test
