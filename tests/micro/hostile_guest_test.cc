// A guest that does anything it can, from two CPUs at once, on the real machine; and a server that
// does the worst it can to the pages that it shares, under a guest that uses them.
#include <atomic>
#include <thread>

#include <doctest/doctest.h>

#include "tests/micro/guest_run.h"
#include "tests/micro/peer.h"

using namespace outboard;
using namespace outboard::micro;
using vmm::ExitStatus;

namespace {

vmm::MachineConfig config_with(const std::string& guest, const Peer& peer, std::uint32_t vcpus) {
  auto config = guest_config(guest);
  config.vcpus = vcpus;
  vmm::DeviceConfig device;
  device.name = "peer";
  device.socket = peer.socket();
  device.on_disconnect = vmm::OnDisconnect::detach;
  config.devices.push_back(device);
  return config;
}

void check_passed(const GuestRun& run) {
  CHECK_MESSAGE(run.reason.status == ExitStatus::powered_off, run.reason.message);
  CHECK_MESSAGE(run.console.ends_with("PASSED\n"), run.console);
}

}  // namespace

TEST_CASE(
    "two CPUs hammer ports, config space and BARs, moved over RAM, ECAM and each other: RAM keeps "
    "priority, the machine and the device survive") {
  for (const PeerOptions& options :
       {PeerOptions{}, PeerOptions{.mapped_bar2 = true},
        PeerOptions{.mapped_bar2 = true, .one_page_only = true, .ioeventfd = true}}) {
    CAPTURE(options.mapped_bar2);
    CAPTURE(options.ioeventfd);
    Peer peer(options);
    GuestRun run;
    run_guest(config_with("hostile", peer, 2), run, {}, std::chrono::seconds(120));
    check_passed(run);
    CHECK(peer.connections() == 1);
    // What it could make the log say was cut off, and counted.
    if (options.mapped_bar2) {
      CHECK_MESSAGE(run.statistics.find(" log lines left out\n") != std::string::npos,
                    run.statistics);
    }
  }
}

TEST_CASE("C45 a server that cuts its file and makes it whole, over and over, costs its device") {
  Peer peer({.mapped_bar2 = true});
  GuestRun run;
  std::atomic<bool> stop{false};
  std::thread flapping;
  run_guest(config_with("flap", peer, 2), run,
            [&](vmm::Machine&, vmm::EventLoop&, MemoryConsole& console) {
              console.on_output([&](const std::string& text) {
                if (text == "ready\n") flapping = std::thread([&] { peer.flap_bar2(stop); });
              });
            });
  stop.store(true);
  if (flapping.joinable()) flapping.join();
  check_passed(run);
}
