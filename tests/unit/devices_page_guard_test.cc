// Pages of a server's file that disappear after they were mapped (C45).
#include <csignal>
#include <thread>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/page_guard.h"
#include "tests/unit/devices_test_device.h"

using namespace outboard;
using namespace outboard::devices;

namespace {

constexpr std::size_t kPage = 4096;

// A file of 4 pages and its mapping from the second page on.
struct Shared {
  explicit Shared(bool guarded = true)
      : file(::memfd_create("shared", MFD_CLOEXEC | MFD_ALLOW_SEALING)),
        lost(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    resize(4 * kPage);
    void* const at = ::mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(),
                            static_cast<off_t>(kPage));
    REQUIRE(at != MAP_FAILED);
    bytes = {static_cast<std::byte*>(at), 3 * kPage};
    for (std::size_t i = 0; i < bytes.size(); i += 64) this->at(i) = 0x5a;
    if (guarded) guard = GuardedPages(bytes, file.get(), kPage, lost.get());
  }
  ~Shared() {
    guard = {};
    ::munmap(bytes.data(), bytes.size());
  }
  void resize(std::size_t size) const {
    REQUIRE(::ftruncate(file.get(), static_cast<off_t>(size)) == 0);
  }
  volatile unsigned char& at(std::size_t offset) const {
    return *reinterpret_cast<volatile unsigned char*>(bytes.data() + offset);
  }
  bool told() const {
    eventfd_t times = 0;
    return ::eventfd_read(lost.get(), &times) == 0;
  }

  vfio_user::UniqueFd file;
  vfio_user::UniqueFd lost;
  std::span<std::byte> bytes;
  GuardedPages guard;
};

// As the guest does, which no sanitizer watches: to ThreadSanitizer a mapping that replaces another
// is a write that races with it.
[[gnu::noinline, gnu::no_sanitize("thread")]] int zeros_in(const std::byte* first,
                                                           std::size_t size) {
  int zeros = 0;
  for (std::size_t at = 0; at < size; at += 512) {
    zeros += *reinterpret_cast<const volatile unsigned char*>(first + at) == 0 ? 1 : 0;
  }
  return zeros;
}

}  // namespace

TEST_CASE("C45 a read or a write beyond the end of a shortened file meets zeros, and is told") {
  for (const bool write : {false, true}) {
    CAPTURE(write);
    Shared shared;
    REQUIRE(shared.guard);
    CHECK_FALSE(shared.told());
    shared.resize(2 * kPage + 100);  // the mapping's first page, and a part of its second
    CHECK_FALSE(shared.told());
    if (write) shared.at(2 * kPage + 8) = 7;
    CHECK(shared.at(2 * kPage + 8) == (write ? 7 : 0));
    CHECK(shared.at(2 * kPage + 64) == 0);
    CHECK(shared.told());
    // The pages that the file still has are the file's.
    CHECK(shared.at(64) == 0x5a);
    shared.at(0) = 9;
    unsigned char seen = 0;
    CHECK(::pread(shared.file.get(), &seen, 1, kPage) == 1);
    CHECK(seen == 9);
    CHECK(shared.at(kPage + 64) == 0x5a);
    CHECK_FALSE(shared.told());
  }
}

TEST_CASE(
    "C45 a file that loses all its bytes, or shrinks twice, costs its pages and nothing else") {
  Shared shared;
  shared.resize(3 * kPage);
  CHECK(shared.at(2 * kPage) == 0);
  CHECK(shared.told());
  shared.resize(0);
  CHECK(shared.at(kPage) == 0);
  CHECK(shared.at(0) == 0);
  CHECK(shared.told());
}

TEST_CASE("C45 repair_pages replaces what is gone without an access to it, once") {
  Shared whole;
  Shared shared;
  const std::uint64_t before = repair_pages();
  CHECK(repair_pages() == before);
  shared.resize(2 * kPage);
  CHECK(repair_pages() == before + 1);
  CHECK(shared.told());
  CHECK(repair_pages() == before + 1);  // KVM's next complaint is about something else
  CHECK_FALSE(shared.told());
  CHECK(shared.at(64) == 0x5a);
  CHECK(shared.at(kPage) == 0);
  CHECK_FALSE(whole.told());
  CHECK(whole.at(2 * kPage) == 0x5a);
}

TEST_CASE(
    "C45 a server that cuts its file and makes it whole again loses its pages, others keep "
    "theirs") {
  Shared sealed;
  REQUIRE(::fcntl(sealed.file.get(), F_ADD_SEALS, F_SEAL_SHRINK) == 0);
  Shared shared;
  shared.resize(0);
  shared.resize(4 * kPage);
  const std::uint64_t before = repair_pages();  // nothing is gone now
  CHECK_FALSE(shared.told());
  shared.at(0) = 1;
  CHECK(give_up_pages() == before + 1);
  CHECK(shared.told());
  CHECK(shared.at(0) == 0);
  CHECK_FALSE(sealed.told());
  CHECK(sealed.at(2 * kPage) == 0x5a);
  CHECK(give_up_pages() == before + 1);  // KVM's next complaint is about something else
}

TEST_CASE("C45 threads that meet the same missing page together all go on") {
  for (int round = 0; round < 20; ++round) {
    Shared shared;
    shared.resize(kPage);
    std::vector<std::thread> threads;
    std::atomic<int> zeros{0};
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] { zeros += zeros_in(shared.bytes.data(), 3 * kPage); });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(zeros == 4 * 24);
  }
}

TEST_CASE("C45 a SIGBUS that is about something else ends the process as it always did") {
  const Shared guarded;  // the handler is installed
  for (const bool sent : {false, true}) {
    CAPTURE(sent);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
      ::dup2(nowhere, STDERR_FILENO);
      if (sent) {
        ::raise(SIGBUS);
      } else {
        const Shared unguarded(false);
        unguarded.resize(0);
        if (unguarded.at(0) == 1) ::_exit(0);
      }
      ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK((WIFSIGNALED(status) || WEXITSTATUS(status) != 0));  // a sanitizer may report and exit
  }
}

TEST_CASE("C45 a registration that has ended guards nothing, and its place is used again") {
  for (std::size_t i = 0; i < 3 * GuardedPages::kMost; ++i) {
    std::byte page{};
    const GuardedPages guard({&page, 1}, -1, 0, -1);
    REQUIRE(guard);
  }
  std::vector<GuardedPages> all;
  std::byte page{};
  for (std::size_t i = 0; i < GuardedPages::kMost; ++i)
    all.emplace_back(std::span(&page, 1), -1, 0, -1);
  CHECK(all.back());
  CHECK_FALSE(GuardedPages({&page, 1}, -1, 0, -1));
}

TEST_CASE("C45 the function whose server shortens its file is lost, and answers all ones") {
  Attached guest;
  std::vector<std::string> lost;
  guest.options.on_lost = [&](const vfio_user::Error& error) { lost.push_back(error.message); };
  guest.attach();
  guest.cfg(pci::kCommand, 2, 2);
  const auto slots = guest.pages.slots();
  REQUIRE(slots.size() == 1);
  const std::uint64_t base = guest.bar(0);
  REQUIRE(::ftruncate(guest.device.page_file(), 0x1000) == 0);
  guest.loop.run();
  CHECK(lost.empty());  // nobody has noticed yet
  CHECK(*reinterpret_cast<volatile unsigned char*>(slots[0].host.data()) == 0);
  for (int i = 0; i < 3; ++i) guest.loop.run(100);
  REQUIRE(lost.size() == 1);
  CHECK(lost[0].find("shortened a file") != std::string::npos);
  CHECK_FALSE(guest.client->alive());
  CHECK(guest.pages.slots().empty());
  CHECK(guest.loop.watches() == 0);
  CHECK(guest.bus.read(base, 4) == 0xffffffff);
  CHECK(guest.cfg(0) == 0xffffffff);
}

TEST_CASE("C45 an access that arrives trapped where a page should have been finds out too") {
  Attached guest;
  int lost = 0;
  guest.options.on_lost = [&](const vfio_user::Error&) { ++lost; };
  guest.attach();
  guest.cfg(pci::kCommand, 2, 2);
  const std::uint64_t base = guest.bar(0);
  REQUIRE(::ftruncate(guest.device.page_file(), 0x1000) == 0);
  guest.bus.read(base + 0x10, 4);  // not there
  guest.loop.run();
  CHECK(lost == 0);
  guest.bus.read(base + 0x1ff8, 4);
  for (int i = 0; i < 3; ++i) guest.loop.run(100);
  CHECK(lost == 1);
  CHECK_FALSE(guest.client->alive());
}
