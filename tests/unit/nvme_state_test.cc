// The state file: who may have it, and what happens to one that lies.
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>

#include <sys/stat.h>

#include "tests/unit/nvme_held_backend.h"
#include "tests/unit/nvme_victim.h"

namespace outboard::nvme::test {
namespace {

using std::chrono::milliseconds;

struct Path {
  Path() : name(socket_path() + ".state") {}
  ~Path() { unlink(name.c_str()); }
  Path(const Path&) = delete;
  Path& operator=(const Path&) = delete;
  const std::string name;
};

const StateIdentity kIdentity{.controller = 1, .namespaces = {10, 20}};

std::string refused(const std::string& path, const StateIdentity& identity = kIdentity) {
  auto file = StateFile::open(path, identity, milliseconds(0));
  REQUIRE_FALSE(file.has_value());
  return file.error();
}
bool mentions(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

void overwrite(const std::string& path, std::size_t at, char byte) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(byte);
  REQUIRE(file.good());
}

// A controller with a pair of queues and commands of all kinds that its backend holds.
struct Busy {
  Busy()
      : saved(std::make_unique<SavedState>()),
        backend(new HeldBackend(1 << 20)),
        guest(one(wrap(backend)), {}, saved.get()) {
    backend->hold = true;
    guest.enable();
    REQUIRE(guest.create_pair(1, 16) == Status::success);
    REQUIRE(guest.create_pair(2, 4, 2) == Status::success);
    for (int i = 0; i < 3; ++i) {
      guest.push(1, Driver::io(IoOpcode::write, 1, 8u * static_cast<u32>(i), 8));
      guest.push(1, Driver::io(IoOpcode::read, 1, 64, 4));
      guest.push(1, Driver::io(IoOpcode::flush, kBroadcastNamespace, 0, 1));
    }
    guest.push(2, Driver::io(IoOpcode::compare, 1, 3, 2));
    for (u16 id = 1; id <= 2; ++id) guest.ring(id);
    for (int i = 0; i < 5; ++i) guest.controller.turn();
    // The format waits for them.
    guest.push(0, Driver::admin(AdminOpcode::async_event_request));
    Command format = Driver::admin(AdminOpcode::format_nvm);
    format.nsid = 1;
    guest.push(0, format);
    guest.ring(0);
    for (int i = 0; i < 5; ++i) guest.controller.turn();
  }
  static Namespace wrap(HeldBackend* backend) {
    Namespace ns;
    ns.backend.reset(backend);
    return ns;
  }
  std::unique_ptr<SavedState> saved;
  HeldBackend* backend;
  Driver guest;
};

}  // namespace

TEST_CASE("A state file appears whole, keeps its name, and is one process's at a time") {
  const Path path;
  std::string id;
  {
    auto file = StateFile::open(path.name, kIdentity, milliseconds(0));
    REQUIRE_MESSAGE(file.has_value(), (file ? "" : file.error()));
    id = (*file)->id();
    CHECK(id.size() == 32);
    CHECK(id.find_first_not_of("0123456789abcdef") == std::string::npos);
    CHECK_FALSE((*file)->left_over());
    struct stat info {};
    REQUIRE(stat(path.name.c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0600);
    CHECK(access((path.name + "." + std::to_string(getpid())).c_str(), F_OK) != 0);
    CHECK(mentions(refused(path.name), "in use by another process; stop that server first"));
    // A client's copy of the doorbell page is no lock.
    auto page = (*file)->doorbell_file();
    REQUIRE(page.has_value());
    file->reset();
    auto again = StateFile::open(path.name, kIdentity, milliseconds(0));
    REQUIRE_MESSAGE(again.has_value(), (again ? "" : again.error()));
    CHECK((*again)->id() == id);
    (*again)->state().attached = 1;
  }
  auto file = StateFile::open(path.name, kIdentity, milliseconds(0));
  REQUIRE(file.has_value());
  CHECK((*file)->left_over());
  // Neither another boot's nor one with guest memory that cannot be known again.
  (*file)->state().boot ^= 1;
  file->reset();
  file = StateFile::open(path.name, kIdentity, milliseconds(0));
  CHECK_FALSE((*file)->left_over());
}

TEST_CASE("A state file of another disk, layout or program is refused, with the way out") {
  const Path path;
  const std::string remedy = "rm '" + path.name + "'";
  REQUIRE(StateFile::open(path.name, kIdentity, milliseconds(0)).has_value());
  CHECK(mentions(refused(path.name, {.controller = 2, .namespaces = {10, 20}}), "serial number"));
  CHECK(mentions(refused(path.name, {.controller = 1, .namespaces = {10}}), "number of namesp"));
  const std::string other = refused(path.name, {.controller = 1, .namespaces = {10, 21}});
  CHECK(mentions(other, "namespace 2"));
  CHECK(mentions(other, remedy));
  CHECK(other.find('\n') == std::string::npos);
  overwrite(path.name, 8, 99);  // the version
  CHECK(mentions(refused(path.name), "another version of outboard-nvme"));
  CHECK(mentions(refused(path.name), remedy));
  overwrite(path.name, 0, 'x');
  CHECK(mentions(refused(path.name), "is no state of outboard-nvme"));
  REQUIRE(truncate(path.name.c_str(), 10) == 0);
  CHECK(mentions(refused(path.name), "is no state of outboard-nvme"));
  CHECK(mentions(refused("/nonexistent/state"), "RuntimeDirectory"));
}

TEST_CASE("Every byte of a state file's header counts") {
  const Path path;
  REQUIRE(StateFile::open(path.name, kIdentity, milliseconds(0)).has_value());
  std::string before(320, 0);
  std::ifstream(path.name, std::ios::binary).read(before.data(), 320);
  std::size_t refusals = 0;
  for (std::size_t at = 0; at < 320; ++at) {
    overwrite(path.name, at, static_cast<char>(before[at] ^ 0x41));
    refusals += StateFile::open(path.name, kIdentity, milliseconds(0)).has_value() ? 0 : 1;
    overwrite(path.name, at, before[at]);
  }
  CHECK(refusals == 320);
  CHECK(StateFile::open(path.name, kIdentity, milliseconds(0)).has_value());
}

TEST_CASE("What a busy controller leaves is undamaged, and its successor finishes it") {
  Busy busy;
  REQUIRE_FALSE(damage(*busy.saved, 1, kMaxIoQueues, kMaxQueues).has_value());
  auto copy = std::make_unique<SavedState>(*busy.saved);
  Controller successor({}, one(memory_namespace(1 << 20)), copy->now, *busy.guest.doorbells,
                       busy.guest.dma, busy.guest.interrupts, copy.get());
  successor.take_over();
  CHECK(successor.suspended());
  CHECK_FALSE(successor.turn());
  CHECK(busy.guest.poll(1).empty());
  successor.resume();
  for (int i = 0; i < 100; ++i) successor.turn();
  CHECK(busy.guest.poll(1, false).size() == 9);
  const auto compared = busy.guest.poll(2, false);
  REQUIRE(compared.size() == 1);
  const auto formatted = busy.guest.poll(0, false);
  REQUIRE(formatted.size() == 1);  // the event request waits on
  CHECK(Driver::answer(formatted[0]).status == Status::success);
}

TEST_CASE("A state that lies, in any of its bytes, is refused or does no harm") {
  const Busy busy;
  const u64 rounds = std::getenv("OUTBOARD_FULL") != nullptr ? 200'000 : 3'000;
  const char* seed = std::getenv("OUTBOARD_SEED");
  std::mt19937_64 random(seed != nullptr ? std::strtoull(seed, nullptr, 10) : 7);
  u64 refusals = 0;
  auto copy = std::make_unique<SavedState>();
  for (u64 round = 0; round < rounds; ++round) {
    *copy = *busy.saved;
    // Where there is something, now and then anywhere.
    const std::array<std::pair<std::byte*, std::size_t>, 6> parts = {{
        {reinterpret_cast<std::byte*>(&copy->now.registers), sizeof(Registers)},
        {reinterpret_cast<std::byte*>(&copy->now.sq), 3 * sizeof(SqState)},
        {reinterpret_cast<std::byte*>(&copy->now.cq), 3 * sizeof(CqState)},
        {reinterpret_cast<std::byte*>(&copy->in_flight), 16 * sizeof(InFlight)},
        {reinterpret_cast<std::byte*>(&copy->undo), sizeof(u32)},
        {reinterpret_cast<std::byte*>(copy.get()), sizeof(SavedState)},
    }};
    for (u64 n = 1 + random() % 4; n > 0; --n) {
      const auto& [bytes, size] = parts[random() % parts.size()];
      const std::byte value{static_cast<u8>(random() % 3 == 0 ? random() % 4 : random())};
      bytes[random() % size] = value;
    }
    if (damage(*copy, 1, kMaxIoQueues, kMaxQueues).has_value()) {
      ++refusals;
      continue;
    }
    FakeInterrupts interrupts;
    FakeDma dma;
    dma.add(kRam, kRamSize / 32);
    Controller successor({}, one(memory_namespace(1 << 16)), copy->now, *busy.guest.doorbells, dma,
                         interrupts, copy.get());
    successor.take_over();
    successor.resume();
    for (int i = 0; i < 8; ++i) successor.turn();
    successor.reset();
    REQUIRE_FALSE(damage(*copy, 1, kMaxIoQueues, kMaxQueues).has_value());
  }
  MESSAGE(refusals << " of " << rounds << " refused");
  CHECK(refusals > rounds / 10);
  CHECK(refusals < rounds * 9 / 10);
}

}  // namespace outboard::nvme::test
