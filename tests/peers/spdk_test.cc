// The client against SPDK's nvmf target: OUTBOARD_PEER_SPDK names the folder with start-nvmf, which
// serves one NVMe controller on DIR/cntrl (its environment: NS_FILE, TRANSPORT).
#include <atomic>
#include <cstring>
#include <thread>

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/peers/nvme.h"
#include "tests/peers/process.h"
#include "tests/peers/spdk_target.h"
#include "vfio_user/client.h"
#include "vfio_user/wire.h"

namespace outboard::peers {
namespace {

using namespace std::chrono_literals;
using vfio_user::Client;
using vfio_user::DeviceDescription;
namespace wire = vfio_user::wire;

std::uint32_t config(const DeviceDescription& device, std::size_t at, std::size_t size) {
  std::uint32_t value = 0;
  REQUIRE(device.config.size() >= at + size);
  std::memcpy(&value, device.config.data() + at, size);
  return value;
}

// All 512 vectors get an eventfd, 8 in a message; MSI-X is enabled, which SPDK looks at.
std::vector<vfio_user::UniqueFd> arm_all(Client& client, const DeviceDescription& device) {
  std::vector<vfio_user::UniqueFd> events;
  std::vector<int> fds;
  for (int i = 0; i < 512; ++i) {
    events.emplace_back(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    fds.push_back(events.back().get());
  }
  const auto armed = client.arm_irqs(wire::kIrqMsix, 0, fds);
  CHECK_MESSAGE(armed, (armed ? "" : armed.error().message));
  CHECK(client.counters().sent[8] == 64);
  std::size_t at = config(device, 0x34, 1);
  while (at != 0 && config(device, at, 1) != 0x11) at = config(device, at + 1, 1);
  REQUIRE(at != 0);
  const auto control = static_cast<std::uint16_t>(config(device, at + 2, 2) | 0x8000);
  CHECK(client.region_write(wire::kRegionConfig, at + 2, std::as_bytes(std::span(&control, 1))));
  const std::uint16_t command = 6;
  CHECK(client.region_write(wire::kRegionConfig, 4, std::as_bytes(std::span(&command, 1))));
  return events;
}

bool signalled(const vfio_user::UniqueFd& event) {
  pollfd ready{event.get(), POLLIN, 0};
  eventfd_t value = 0;
  return ::poll(&ready, 1, 10000) == 1 && ::eventfd_read(event.get(), &value) == 0;
}

// The life of a controller: enabled, 100 Identify commands, reset, and again.
void use(Client& client, NvmeHost& nvme, const DeviceDescription& device,
         const NvmeHost::Ring& ring) {
  const auto events = arm_all(client, device);
  CHECK(nvme.enable(client, ring) == "");
  for (int i = 0; i < 100; ++i) {
    const std::string fault = nvme.identify();
    REQUIRE_MESSAGE(fault.empty(), fault);
    REQUIRE(signalled(events[0]));
  }
  CHECK(nvme.serial() == "SPDK0");
  CHECK(nvme.model().find("SPDK") != std::string::npos);
  CHECK(client.alive());
  CHECK(client.counters().errors == 0);
}

}  // namespace

TEST_SUITE("SPDK" * doctest::skip(spdk_folder() == nullptr)) {
  TEST_CASE(
      "C76 nvmf target, mappable BAR0: 512 vectors, Identify by the doorbell page, a fresh one") {
    SpdkTarget target(SpdkMode::polling);
    for (int round = 0; round < 2; ++round) {
      CAPTURE(round);
      NvmeHost nvme;
      auto client = target.connect();
      const auto device = client->attach(nvme.windows());
      REQUIRE_MESSAGE(device, (device ? "" : device.error().message));
      CHECK(config(*device, 0, 4) == 0x00014e58);
      CHECK(config(*device, 9, 3) == 0x010802);
      CHECK(device->irqs[wire::kIrqMsix].count == 512);
      const vfio_user::Region& bar0 = device->regions[0];
      REQUIRE_MESSAGE(bar0.mappable, bar0.trapped_because);
      CHECK(bar0.areas == std::vector<vfio_user::SparseArea>{{0x1000, 0x1000}});
      void* const page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, bar0.area_fd(0),
                                static_cast<off_t>(bar0.file_offset + 0x1000));
      REQUIRE(page != MAP_FAILED);
      auto* const doorbells = static_cast<std::uint32_t*>(page);
      use(*client, nvme, *device, [&](std::uint64_t at, std::uint32_t value) {
        std::atomic_ref<std::uint32_t>(doorbells[(at - 0x1000) / 4]).store(value);
      });
      ::munmap(page, 4096);
    }
    CHECK(target.process().running());
  }

  TEST_CASE("nvmf target, mappable BAR0: doorbells by acknowledged messages work as well") {
    SpdkTarget target(SpdkMode::polling);
    NvmeHost nvme;
    auto client = target.connect();
    const auto device = client->attach(nvme.windows());
    REQUIRE(device);
    use(*client, nvme, *device, [&](std::uint64_t at, std::uint32_t value) {
      CHECK(client->region_write(0, at, std::as_bytes(std::span(&value, 1))));
    });
  }

  TEST_CASE("nvmf target in interrupt mode, no mappable BAR0: every doorbell is a posted write") {
    SpdkTarget target(SpdkMode::interrupt);
    NvmeHost nvme;
    auto client = target.connect();
    const auto device = client->attach(nvme.windows());
    REQUIRE_MESSAGE(device, (device ? "" : device.error().message));
    CHECK_FALSE(device->regions[0].mappable);
    const NvmeHost::Ring ring = [&](std::uint64_t at, std::uint32_t value) {
      CHECK(client->region_write(0, at, std::as_bytes(std::span(&value, 1)),
                                 vfio_user::Write::may_post));
    };
    use(*client, nvme, *device, ring);
    CHECK(client->counters().posted == 200);
    CHECK(client->reset());
    // Its reset leaves CC.EN as it is: a driver's own disabling is what starts it anew.
    CHECK(nvme.enable(*client, ring) == "");
    CHECK(nvme.identify() == "");
  }

  TEST_CASE("nvmf target: outboard probe says what it is, and changes nothing") {
    SpdkTarget target(SpdkMode::interrupt);
    for (int i = 0; i < 2; ++i) {
      const Outcome probe = run({OUTBOARD_PROGRAM, "probe", target.socket()}, target.folder());
      CHECK_MESSAGE(probe.status == 0, probe.output);
      CHECK_MESSAGE(probe.output.find("4e58:0001") != std::string::npos, probe.output);
      std::this_thread::sleep_for(100ms);  // it accepts its next client by a timer
    }
  }
}

}  // namespace outboard::peers
