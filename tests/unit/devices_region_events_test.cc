// Ioeventfds of a vfio-user server on the machine's buses.
#include <atomic>
#include <thread>

#include <doctest/doctest.h>
#include <sys/eventfd.h>

#include "devices/region_events.h"
#include "devices/region_window.h"
#include "tests/unit/devices_test_device.h"

using namespace outboard;
using namespace outboard::devices;

namespace {

namespace wire = vfio_user::wire;
using Lines = std::vector<std::string>;

constexpr std::uint32_t kCommand = pci::kCommand;

vfio_user::UniqueFd event() {
  return vfio_user::UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

eventfd_t taken(const vfio_user::UniqueFd& fd) {
  eventfd_t value = 0;
  return ::eventfd_read(fd.get(), &value) == 0 ? value : 0;
}

// A machine whose BAR 0 has no pages: 16 KiB of registers, MSI-X table and PBA, all trapped.
struct Offering : Attached {
  Offering() {
    auto& bar = device.shape_.regions[0];
    bar.flags &= ~wire::kRegionMappable;
    bar.areas.clear();
    bar.fd = -1;
  }
};

}  // namespace

TEST_CASE(
    "C62 ioeventfds are with the kernel while the BAR is decoded, and their stores cost nothing") {
  Offering guest;
  const auto fd = event();
  guest.device.offer(0, {{0x10, 4, fd.get()}, {0x18, 2, fd.get(), wire::kIoEventFdDatamatch, 7}});
  guest.attach();
  CHECK(guest.io_events.list().empty());
  guest.cfg(kCommand, 2, 2);
  CHECK(guest.io_events.list() == Lines{"m 1000000010/4", "m 1000000018/2=7"});
  guest.messages();

  const std::uint64_t base = guest.bar(0);
  CHECK(guest.io_events.store(base + 0x10, 4, 1));
  CHECK(guest.io_events.store(base + 0x18, 2, 7));
  CHECK_FALSE(guest.io_events.store(base + 0x18, 2, 8));  // datamatch
  CHECK_FALSE(guest.io_events.store(base + 0x10, 8, 1));  // another width
  CHECK(taken(fd) == 2);
  CHECK(guest.messages().empty());

  guest.cfg(kCommand, 2, 0);
  CHECK(guest.io_events.list().empty());
}

TEST_CASE("ioeventfds follow the BAR when the guest moves it") {
  Offering guest;
  const auto fd = event();
  guest.device.offer(0, {{0x10, 4, fd.get()}});
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  guest.cfg(0x10, 4, 0xd0000000);
  guest.cfg(0x14, 4, 0);
  CHECK(guest.io_events.list() == Lines{"m d0000010/4"});
  guest.function.reset();
  CHECK(guest.io_events.list().empty());
}

TEST_CASE("ioeventfds of an I/O BAR are on the port bus") {
  Attached guest;
  const auto fd = event();
  guest.device.offer(2, {{4, 1, fd.get(), wire::kIoEventFdPio}});
  guest.attach();
  guest.cfg(kCommand, 2, 3);
  CHECK(guest.io_events.list() == Lines{"p c004/1"});
}

TEST_CASE(
    "C61 C63 ranges of the other address space or on the MSI-X table stay trapped, and are named") {
  Offering guest;
  const auto fd = event();
  guest.device.offer(0, {{0x10, 4, fd.get(), wire::kIoEventFdPio},
                         {kTable + 8, 4, fd.get()},
                         {kPba, 8, fd.get()},
                         {0x3ffc, 4, fd.get()}});
  guest.device.offer(2, {{0, 1, fd.get()}});
  guest.attach();
  guest.cfg(kCommand, 2, 3);
  CHECK(guest.io_events.list() == Lines{"m 1000003ffc/4"});
  CHECK(guest.log.count("is not used") == 4);
  CHECK(guest.log.count("I/O ports and the BAR is memory") == 1);
}

TEST_CASE(
    "C63 an offer with overlapping ranges is refused as a whole, in one line; stores stay "
    "messages") {
  Offering guest;
  const auto fd = event();
  guest.device.offer(0, {{0x10, 8, fd.get()}, {0x14, 4, fd.get()}});
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  CHECK(guest.io_events.list().empty());
  CHECK(guest.log.count("overlaps another") == 1);
  guest.messages();
  guest.bus.write(guest.bar(0) + 0x10, 4, 1);
  CHECK(guest.messages() == Lines{"w0 10/4=1"});
}

TEST_CASE("an ioeventfd that the kernel refuses leaves its stores as messages") {
  Offering guest;
  const auto fd = event();
  guest.device.offer(0, {{0x10, 4, fd.get()}});
  guest.io_events.refuse = true;
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  CHECK(guest.log.count("stay messages: EEXIST") == 1);
  guest.messages();
  guest.bus.write(guest.bar(0) + 0x10, 4, 1);
  CHECK(guest.messages() == Lines{"w0 10/4=1"});
  guest.cfg(kCommand, 2, 0);  // and nothing is taken back that was never given
}

TEST_CASE("only writable BARs without pages are asked for ioeventfds, in no further round trip") {
  Attached guest;  // BAR 0 has pages
  auto pair = vfio_user::SocketTransport::make_pair();
  REQUIRE(pair);
  ServerThread server(std::move(pair->second), guest.device);
  auto client = vfio_user::Client::adopt(std::move(pair->first), {});
  REQUIRE(client);
  const auto description = (*client)->attach({});
  REQUIRE(description);
  CHECK(description->round_trips == 3);
  const Lines all = guest.device.take_log();
  Lines asked;
  std::ranges::copy_if(all, std::back_inserter(asked),
                       [](const std::string& line) { return line.starts_with("ask"); });
  CHECK(asked == Lines{"ask 2", "ask 3"});
  (*client)->close();
}

TEST_CASE(
    "a region that offered ioeventfds is asked again after each trapped store outside of them, "
    "before "
    "the store returns; others never are") {
  Offering guest;
  const auto fd = event();
  guest.device.offer(0, {{0x10, 4, fd.get()}, {0x20, 4, fd.get()}});
  guest.attach();
  guest.cfg(kCommand, 2, 3);
  guest.messages();
  const std::uint64_t base = guest.bar(0);

  guest.bus.write(base + 0x40, 4, 1);
  CHECK(guest.messages() == Lines{"w0 40/4=1", "ask 0"});
  CHECK(guest.io_events.attaches == 2);  // the same offer: nothing was touched
  guest.bus.write(base + 0x10, 4, 1);    // in a range
  guest.bus.read(base + 0x40, 4);
  guest.bus.write(base + kTable + 12, 4, 1);  // answered here
  guest.bus.write(guest.bar(3), 4, 1);        // offered nothing at attach
  CHECK(guest.messages() == Lines{"w0 10/4=1", "r0 40/4", "w3 0/4=1"});

  // A controller reset takes them away; a later offer is taken up again.
  guest.device.offer(0, {});
  guest.bus.write(base + 0x40, 4, 0);
  CHECK(guest.io_events.list().empty());
  const auto other = event();
  guest.device.offer(0, {{0x20, 4, other.get()}});
  guest.bus.write(base + 0x40, 4, 1);
  CHECK(guest.io_events.list() == Lines{"m 1000000020/4"});
  // The same range with another eventfd is another offer.
  guest.device.offer(0, {{0x20, 4, fd.get()}});
  guest.bus.write(base + 0x40, 4, 1);
  CHECK(guest.io_events.store(base + 0x20, 4, 0));
  CHECK(taken(fd) == 1);
  CHECK(taken(other) == 0);
}

TEST_CASE("after a reset of the machine and a function-level reset the offer is asked for anew") {
  Offering guest;
  const auto fd = event();
  guest.device.offer(0, {{0x10, 4, fd.get()}});
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  guest.device.offer(0, {});
  guest.function->reset();
  guest.cfg(kCommand, 2, 2);
  CHECK(guest.io_events.list().empty());
  guest.device.offer(0, {{0x10, 4, fd.get()}});
  guest.cfg(kExpressCap + 8, 2, 0xa810);
  guest.cfg(kCommand, 2, 2);
  CHECK(guest.io_events.list().size() == 1);
}

TEST_CASE("C57 no store is posted to a device that offered an ioeventfd") {
  for (const bool offers : {true, false}) {
    CAPTURE(offers);
    Attached guest;
    for (auto& region : guest.device.shape_.regions) {
      region.flags &= ~wire::kRegionMappable;
      region.areas.clear();
    }
    const auto fd = event();
    if (offers) guest.device.offer(0, {{0x10, 4, fd.get()}});
    guest.attach();
    guest.cfg(kCommand, 2, 2);
    guest.bus.write(guest.bar(3) + 0x40, 4, 1);  // a region that offers none itself
    guest.bus.write(guest.bar(0) + 0x40, 4, 1);
    guest.messages();
    CHECK(guest.client->counters().posted == (offers ? 0 : 2));
  }
}

TEST_CASE("stores of several vCPUs ask at the same time: none waits for the answer to another") {
  Offering guest;
  const auto fd = event();
  guest.device.offer(0, {{0x10, 4, fd.get()}});
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  const std::uint64_t base = guest.bar(0);
  // While the first question is answered the messages of the other vCPU arrive.
  std::atomic<int> asked = 0;
  guest.device.asked = [&] {
    if (++asked == 1) CHECK(guest.server->readable(10000));
  };
  std::thread other([&] {
    while (asked == 0) std::this_thread::yield();
    guest.bus.write(base + 0x48, 4, 2);
  });
  guest.bus.write(base + 0x40, 4, 1);
  other.join();
  CHECK(asked == 2);
  CHECK(guest.client->counters().timeouts == 0);  // which would end the wait as well
  CHECK(guest.io_events.list().size() == 1);
}

TEST_CASE("an answer that a newer one has overtaken does not come into force") {
  Offering guest;
  const auto fd = event();
  guest.device.offer(0, {{0x10, 4, fd.get()}});
  guest.attach();
  FakeIoEvents kernel;
  GuestLog log("test", {});
  AccessCounters counters;
  BarInfo bar;
  bar.region = 0;
  bar.size = 0x4000;
  RegionEvents events(bar, {}, kernel, log);
  events.move(0x10000);
  DeviceLink link(guest.client, {});
  RegionWindow window({0, 0x4000, true, true}, {}, link, counters, log);
  window.watch_events(events);

  // A store's question is answered while the other thread's question, which keeps answers from
  // being taken, is in the socket; then the offer is withdrawn, and the other thread told.
  std::atomic<int> asked = 0;
  guest.device.asked = [&] {
    if (++asked == 1) CHECK(guest.server->readable(10000));
    if (asked == 2) guest.device.offer(0, {});
  };
  std::thread other([&] {
    while (asked == 0) std::this_thread::yield();
    window.refresh_events();
  });
  const std::byte data[4]{};
  window.write(0x40, data);
  other.join();
  CHECK(kernel.list().empty());
  CHECK(asked == 3);  // the store has asked again
  CHECK(guest.client->counters().timeouts == 0);
}

TEST_CASE("what cannot be used is named once, not at each store; nor is the kernel asked again") {
  Offering guest;
  const auto fd = event();
  guest.device.offer(0, {{0x10, 4, fd.get(), wire::kIoEventFdPio}, {0x20, 4, fd.get()}});
  guest.io_events.refuse = true;
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  for (int i = 0; i < 3; ++i) guest.bus.write(guest.bar(0) + 0x40, 4, 1);
  CHECK(guest.log.count("is not used") == 1);
  CHECK(guest.log.count("stay messages") == 1);
  CHECK(guest.io_events.attaches == 1);
  guest.io_events.refuse = false;  // at another place it may be wanted
  guest.cfg(kCommand, 2, 0);
  guest.cfg(kCommand, 2, 2);
  CHECK(guest.io_events.list().size() == 1);
}

TEST_CASE("the last answer stays when vCPUs change the offer at the same time") {
  Offering guest;
  const auto fd = event();
  guest.device.offer(0, {{0x10, 4, fd.get()}});
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  const std::uint64_t base = guest.bar(0);
  std::vector<std::thread> vcpus;
  for (int i = 0; i < 4; ++i) {
    vcpus.emplace_back([&, i] {
      for (int n = 0; n < 50; ++n) {
        if (i == 0) {
          guest.device.offer(0, n % 2 == 0
                                    ? std::vector<vfio_user::ServerIoFd>{}
                                    : std::vector<vfio_user::ServerIoFd>{{0x10, 4, fd.get()}});
        }
        guest.bus.write(base + 0x40, 4, 1);
        if (i == 0) CHECK(guest.io_events.list().size() == (n % 2 == 0 ? 0 : 1));
        if (i == 1) guest.cfg(0x3c, 1, static_cast<std::uint32_t>(n));
      }
    });
  }
  for (std::thread& vcpu : vcpus) vcpu.join();
}

TEST_CASE("a server that dies takes its ioeventfds along") {
  Offering guest;
  const auto fd = event();
  guest.device.offer(0, {{0x10, 4, fd.get()}});
  guest.attach();
  guest.cfg(kCommand, 2, 2);
  REQUIRE(guest.io_events.list().size() == 1);
  guest.server->stop();
  while (!guest.io_events.list().empty()) guest.loop.run(100);
  CHECK(guest.io_events.list().empty());
}
