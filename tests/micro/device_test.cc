// The machine with a PCI device behind a vfio-user socket: the whole way of an access, on the real
// client, the real function and the real server library.
#include <doctest/doctest.h>

#include "tests/micro/guest_run.h"
#include "tests/micro/peer.h"

using namespace outboard;
using namespace outboard::micro;
using vmm::ExitStatus;

namespace {

vmm::MachineConfig config_with(const std::string& guest, const Peer& peer,
                               std::uint32_t vcpus = 1) {
  auto config = guest_config(guest);
  config.vcpus = vcpus;
  vmm::DeviceConfig device;
  device.name = "peer";
  device.socket = peer.socket();
  config.devices.push_back(device);
  return config;
}

void check_passed(const GuestRun& run) {
  CHECK_MESSAGE(run.reason.status == ExitStatus::powered_off, run.reason.message);
  CHECK_MESSAGE(run.console.ends_with("PASSED\n"), run.console);
}

bool has_line(const GuestRun& run, const std::string& line) {
  return ("\n" + run.console).find("\n" + line + "\n") != std::string::npos;
}

// From "exits: N port, M memory, …".
unsigned long memory_exits(const GuestRun& run) {
  const auto port = run.statistics.find(" port, ", run.statistics.find("exits: "));
  REQUIRE(port != std::string::npos);
  return std::stoul(run.statistics.substr(port + 7));
}

}  // namespace

TEST_CASE(
    "C53 C54 config space by ECAM and by CF8/CFC, BAR sizing, accesses of every width and across "
    "the edges of mapped pages, DMA") {
  for (const PeerOptions& options : {PeerOptions{}, PeerOptions{.mapped_bar2 = true},
                                     PeerOptions{.mapped_bar2 = true, .one_page_only = true}}) {
    const bool mapped = options.mapped_bar2;
    CAPTURE(mapped);
    CAPTURE(options.one_page_only);
    Peer peer(options);
    GuestRun run;
    run_guest(config_with("pci", peer), run);
    check_passed(run);
    CHECK(peer.connections() == 1);
    // The last store to BAR2 is in the device's own memory.
    if (mapped) CHECK(std::to_integer<int>(peer.bar2()[0xfffc]) == 7);
  }
}

TEST_CASE("C62 a store to an ioeventfd causes no exit to user space and no message") {
  Peer peer({.ioeventfd = true});
  GuestRun run;
  run_guest(config_with("ioeventfd", peer), run);
  check_passed(run);
  // A thousand stores, and some dozens of accesses beside them.
  CHECK_MESSAGE(memory_exits(run) < 100, run.statistics);
}

TEST_CASE("C75 the windows that a device gets are the guest's memory, all of it and nothing else") {
  for (const std::uint64_t size : {128 * vmm::kMiB, 4 * vmm::kGiB}) {
    CAPTURE(size);
    Peer peer;
    GuestRun run;
    auto config = config_with("pci", peer);  // in which the device reads and writes memory
    config.memory = size;
    run_guest(config, run);
    check_passed(run);
    const std::uint64_t below = std::min(size, std::uint64_t{0xc0000000});
    std::vector<Peer::Window> wanted = {{0, below, true}};
    if (size > below) wanted.push_back({4 * vmm::kGiB, size - below, true});
    CHECK(peer.windows() == wanted);
  }
}

TEST_CASE("C50 BARs move, and decoding is toggled, under another vCPU's accesses") {
  for (const bool mapped : {false, true}) {
    CAPTURE(mapped);
    Peer peer({.mapped_bar2 = mapped});
    GuestRun run;
    run_guest(config_with("bar_move", peer, 2), run);
    check_passed(run);
  }
}

TEST_CASE("C69 MSI-X: vectors arrive through irqfd; masked ones stay pending and come once") {
  Peer peer;
  GuestRun run;
  run_guest(config_with("msix", peer), run);
  check_passed(run);
}

TEST_CASE(
    "boot marks of an NVMe class device; its MSI-X vectors lose nothing to the one-shot probe") {
  using devices::DeviceMark;
  Peer peer;
  auto config = config_with("msix", peer);
  config.devices[0].class_code = 0x010802;
  GuestRun run;
  run_guest(config, run);
  check_passed(run);
  const devices::DeviceMarks& marks = run.marks.device(0);
  std::uint64_t before = 0;
  for (const DeviceMark mark :
       {DeviceMark::connected, DeviceMark::negotiated, DeviceMark::mapped, DeviceMark::described,
        DeviceMark::config_access, DeviceMark::memory_decoding, DeviceMark::bar_access,
        DeviceMark::msix_enabled, DeviceMark::io_vector, DeviceMark::first_interrupt,
        DeviceMark::first_io_completion}) {
    CAPTURE(vmm::mark_name(mark));
    REQUIRE(marks.at(mark).has_value());
    if (mark != DeviceMark::msix_enabled) CHECK(*marks.at(mark) >= before);
    before = *marks.at(mark);
  }
  CHECK(run.statistics.find("peer: first I/O completion\n") != std::string::npos);
}

TEST_CASE("INTx: level-triggered, brought again by each EOI while held, unmasked once per EOI") {
  Peer peer;
  GuestRun run;
  run_guest(config_with("intx", peer), run);
  check_passed(run);
}

TEST_CASE(
    "C98 reboot with a device: same connection, one DEVICE_RESET each, BARs and MSI-X as at "
    "first") {
  for (const bool mapped : {false, true}) {
    CAPTURE(mapped);
    Peer peer({.mapped_bar2 = mapped});
    GuestRun run;
    run_guest(config_with("reboot", peer), run);
    check_passed(run);
    CHECK(has_line(run, "boot 5"));
    CHECK(peer.resets() == 5);
    CHECK(peer.connections() == 1);
  }
}

TEST_CASE("a device that goes away: on_disconnect = stop ends the machine, status 8") {
  auto peer = std::make_unique<Peer>();
  GuestRun run;
  run_guest(config_with("deaf", *peer), run,
            [&](vmm::Machine&, vmm::EventLoop& loop, MemoryConsole& console) {
              console.on_output([&](const std::string& text) {
                if (text != "ready\n") return;
                loop.post([&] { console.outside().run([&] { peer.reset(); }); });
              });
            });
  CHECK(run.reason.exit_code() == 8);
  CHECK(run.reason.message.find("peer") != std::string::npos);
}
