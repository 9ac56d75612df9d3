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

TEST_CASE("PCI: config space by ECAM and by CF8/CFC, BAR sizing, accesses of every width, DMA") {
  for (const bool mapped : {false, true}) {
    CAPTURE(mapped);
    Peer peer({.mapped_bar2 = mapped});
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

TEST_CASE("BARs move, and decoding is toggled, under another vCPU's accesses") {
  for (const bool mapped : {false, true}) {
    CAPTURE(mapped);
    Peer peer({.mapped_bar2 = mapped});
    GuestRun run;
    run_guest(config_with("bar_move", peer, 2), run);
    check_passed(run);
  }
}

TEST_CASE("MSI-X: vectors arrive through irqfd; masked ones stay pending and come once") {
  Peer peer;
  GuestRun run;
  run_guest(config_with("msix", peer), run);
  check_passed(run);
}

TEST_CASE("INTx: level-triggered, brought again by each EOI while held, unmasked once per EOI") {
  Peer peer;
  GuestRun run;
  run_guest(config_with("intx", peer), run);
  check_passed(run);
}

TEST_CASE(
    "reboot with a device: same connection, one DEVICE_RESET each, BARs and MSI-X as at first") {
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
                if (text == "ready\n") loop.post([&] { peer.reset(); });
              });
            });
  CHECK(run.reason.exit_code() == 8);
  CHECK(run.reason.message.find("peer") != std::string::npos);
}
