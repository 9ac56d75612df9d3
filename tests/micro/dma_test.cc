// Least DMA (issue 5, item 8): a device's server gets the windows of its configuration, and the
// guest's other memory stays as it was.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include <doctest/doctest.h>

#include "tests/micro/guest_run.h"
#include "tests/micro/peer.h"

using namespace outboard;
using namespace outboard::micro;
using vmm::DmaAccess;
using vmm::DmaRange;
using vmm::kMiB;

TEST_CASE(
    "least DMA: a device reaches its windows as it may and no other memory, also after its server "
    "has died and come back") {
  std::string folder = (std::filesystem::temp_directory_path() / "outboard-dma.XXXXXX").string();
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  const PeerOptions options{.socket = folder + "/device.sock"};
  auto peer = std::make_unique<Peer>(options);
  auto config = guest_config("dma");
  vmm::DeviceConfig device;
  device.name = "peer";
  device.socket = peer->socket();
  device.on_disconnect = vmm::OnDisconnect::reconnect;
  device.dma = {{32 * kMiB, 32 * kMiB, DmaAccess::read_only},
                {64 * kMiB, 32 * kMiB, DmaAccess::read_write}};
  config.devices.push_back(device);
  const std::vector<Peer::Window> wanted = {{32 * kMiB, 32 * kMiB, true, false},
                                            {64 * kMiB, 32 * kMiB, true, true}};
  GuestRun run;
  run_guest(config, run, [&](vmm::Machine&, vmm::EventLoop& loop, MemoryConsole& console) {
    console.on_output([&](const std::string& text) {
      if (text != "ready\n") return;
      loop.post([&] {
        console.outside().run([&] {
          CHECK(peer->windows() == wanted);
          peer.reset();
          peer = std::make_unique<Peer>(options);
        });
        console.send("x");
      });
    });
  });
  CHECK_MESSAGE(run.reason.status == vmm::ExitStatus::powered_off, run.reason.message);
  CHECK_MESSAGE(run.console == "ready\nPASSED\n", run.console);
  CHECK(peer->windows() == wanted);
  peer.reset();
  std::filesystem::remove_all(folder);
}

TEST_CASE("least DMA: \"read-only\" and \"none\" beside a device that may use all of memory") {
  for (const bool none : {false, true}) {
    CAPTURE(none);
    Peer limited, free;
    auto config = guest_config("hello");
    vmm::DeviceConfig device;
    device.name = "limited";
    device.socket = limited.socket();
    device.dma.clear();
    if (!none) device.dma = {{.access = DmaAccess::read_only}};
    config.devices.push_back(device);
    device = {};
    device.name = "free";
    device.socket = free.socket();
    config.devices.push_back(device);
    GuestRun run;
    run_guest(config, run);
    CHECK_MESSAGE(run.reason.status == vmm::ExitStatus::powered_off, run.reason.message);
    std::vector<Peer::Window> wanted;
    if (!none) wanted.push_back({0, 128 * kMiB, true, false});
    CHECK(limited.windows() == wanted);
    CHECK(free.windows() == std::vector<Peer::Window>{{0, 128 * kMiB, true, true}});
  }
}

TEST_CASE("outboard check prints the windows of each device") {
  const std::string command =
      "printf '[machine]\nmemory = \"128M\"\n[kernel]\npath = \"" OUTBOARD_GUESTS
      "/hello\"\n[[device]]\nsocket = \"s\"\ndma = [{ base = \"0x2000000\", size = \"32M\", access "
      "= "
      "\"read-only\" }]\n[[device]]\nsocket = \"t\"\n' | " OUTBOARD_PROGRAM " check - 2>&1";
  std::FILE* const program = ::popen(command.c_str(), "r");
  REQUIRE(program != nullptr);
  std::string text;
  std::array<char, 4096> piece{};
  while (const std::size_t got = std::fread(piece.data(), 1, piece.size(), program)) {
    text.append(piece.data(), got);
  }
  CHECK(::pclose(program) == 0);
  CHECK_MESSAGE(text.find("DMA windows: 0x2000000 +32M read-only\n") != std::string::npos, text);
  CHECK_MESSAGE(text.find("DMA windows: 0x0 +32M read-write, 0x2000000 +32M read-write, 0x4000000 "
                          "+64M read-write\n") != std::string::npos,
                text);
}
