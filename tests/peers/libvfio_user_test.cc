// The client against the samples of libvfio-user: OUTBOARD_PEER_LIBVFIO_USER names the folder with
// gpio-pci-idio-16, server and shadow_ioeventfd_server.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <ctime>
#include <thread>

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/peers/process.h"
#include "vfio_user/client.h"
#include "vfio_user/wire.h"

namespace outboard::peers {
namespace {

using namespace std::chrono_literals;
using vfio_user::Client;
using vfio_user::ClientOptions;
using vfio_user::DmaWindow;
namespace wire = vfio_user::wire;

const char* const kFolder = peer("OUTBOARD_PEER_LIBVFIO_USER");

struct Sample {
  explicit Sample(const std::string& name, const std::vector<std::string>& options = {})
      : socket(folder / "s") {
    std::vector<std::string> command = {std::string(kFolder) + "/" + name};
    command.insert(command.end(), options.begin(), options.end());
    command.push_back(socket);
    process.emplace(command, folder / "log");
    REQUIRE_MESSAGE(wait_for_socket(*process, socket), process->output());
  }
  std::unique_ptr<Client> connect(ClientOptions options = {}) const {
    auto client = Client::connect(socket, std::move(options));
    REQUIRE_MESSAGE(client, (client ? "" : client.error().message));
    return std::move(*client);
  }

  Folder folder;
  std::string socket;
  std::optional<Process> process;
};

std::uint32_t config(const vfio_user::DeviceDescription& device, std::size_t at) {
  std::uint32_t value = 0;
  REQUIRE(device.config.size() >= at + 4);
  std::memcpy(&value, device.config.data() + at, 4);
  return value;
}

// A window over a memfd of its own, seen here too.
struct SharedWindow {
  SharedWindow(std::uint64_t address, std::size_t size)
      : file(::memfd_create("window", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
    REQUIRE(::ftruncate(file.get(), static_cast<off_t>(size)) == 0);
    void* const at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    REQUIRE(at != MAP_FAILED);
    bytes = {static_cast<std::byte*>(at), size};
    window = {address, size, file.get(), 0, true, true, bytes};
  }
  ~SharedWindow() { ::munmap(bytes.data(), bytes.size()); }
  vfio_user::UniqueFd file;
  std::span<std::byte> bytes;
  DmaWindow window;
};

// What an event loop does, for a moment.
void serve(Client& client) {
  pollfd ready{client.poll_fd(), POLLIN, 0};
  if (::poll(&ready, 1, 10) == 1) client.service();
}

bool signalled(int fd, std::chrono::milliseconds patience) {
  pollfd ready{fd, POLLIN, 0};
  if (::poll(&ready, 1, static_cast<int>(patience.count())) != 1) return false;
  eventfd_t value = 0;
  return ::eventfd_read(fd, &value) == 0 && value > 0;
}

}  // namespace

TEST_SUITE("libvfio-user" * doctest::skip(kFolder == nullptr)) {
  TEST_CASE(
      "gpio-pci-idio-16: identity, ports, errors with a payload, INTx, reset, three clients") {
    const Sample gpio("gpio-pci-idio-16");
    for (int round = 0; round < 3; ++round) {
      auto client = gpio.connect();
      const SharedWindow ram(0, 1 << 21);
      const auto device = client->attach({&ram.window, 1});
      REQUIRE_MESSAGE(device, (device ? "" : device.error().message));
      CHECK(config(*device, 0) == 0x0dc8494f);
      CHECK(device->regions[2].size == 0x100);
      CHECK(device->irqs[wire::kIrqIntx].count == 1);
      CHECK(device->resettable);
      CHECK(client->server().max_msg_fds == 8);
      const vfio_user::UniqueFd intx(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      const int fd = intx.get();
      CHECK(client->arm_irqs(wire::kIrqIntx, 0, {&fd, 1}));
      CHECK(client->trigger_irqs(wire::kIrqIntx, 0, 1));
      CHECK(signalled(fd, 5s));
      std::array<std::byte, 1> byte{};
      for (std::uint64_t port = 0; port < 8; ++port) {
        CHECK(client->region_read(2, port, byte).value_or(0) == 1);
        CHECK(client->region_write(2, port, byte));
      }
      // A BAR without a handler: an error reply of 36 bytes, and the stream goes on.
      CHECK_FALSE(client->region_read(2, 0xfe, std::span(byte).first(0)));
      std::array<std::byte, 4> word{};
      CHECK_FALSE(client->region_read(0, 0, word));
      CHECK(client->region_read(wire::kRegionConfig, 0, word).value_or(0) == 4);
      CHECK(word[0] == std::byte{0x4f});
      CHECK(client->reset());
      CHECK(client->disable_irqs(wire::kIrqIntx));
      CHECK(client->dma_unmap(0, 1 << 21));
      CHECK(client->alive());
    }
  }

  TEST_CASE(
      "gpio-pci-idio-16: a second client is refused by the deadline, the first one works on") {
    const Sample gpio("gpio-pci-idio-16");
    auto first = gpio.connect();
    REQUIRE(first->attach({}));
    ClientOptions options;
    options.timeouts.version = 200ms;
    const auto second = Client::connect(gpio.socket, std::move(options));
    REQUIRE_FALSE(second);
    CHECK(second.error().kind == vfio_user::Error::Kind::timeout);
    std::array<std::byte, 4> word{};
    CHECK(first->region_read(wire::kRegionConfig, 0, word).value_or(0) == 4);
  }

  TEST_CASE("gpio-pci-idio-16: outboard probe and identify agree on what it is") {
    const Sample gpio("gpio-pci-idio-16");
    const Outcome probe = run({OUTBOARD_PROGRAM, "probe", gpio.socket}, gpio.folder);
    CHECK_MESSAGE(probe.status == 0, probe.output);
    CHECK_MESSAGE(probe.output.find("494f:0dc8") != std::string::npos, probe.output);
    const Outcome identify = run({OUTBOARD_IDENTIFY, gpio.socket}, gpio.folder);
    CHECK(identify.status == 0);
    CHECK_MESSAGE(identify.output.find("494f:0dc8") != std::string::npos, identify.output);
  }

  TEST_CASE(
      "C91 server: INTx, DMA by messages and by mapping, with a twin socket under racing "
      "commands") {
    for (const bool twin : {true, false}) {
      CAPTURE(twin);
      Sample server("server", {"-v"});
      ClientOptions options;
      options.offer_twin_socket = twin;
      auto client = server.connect(std::move(options));
      CHECK(client->server().twin_socket == twin);
      std::vector<std::byte> plain(1 << 16);
      const SharedWindow shared(0x100000, 1 << 16);
      const DmaWindow windows[] = {{0, plain.size(), -1, 0, true, true, plain}, shared.window};
      const auto device = client->attach(windows);
      REQUIRE_MESSAGE(device, (device ? "" : device.error().message));
      const vfio_user::UniqueFd intx(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      const int fd = intx.get();
      REQUIRE(client->arm_irqs(wire::kIrqIntx, 0, {&fd, 1}));
      for (int round = 0; round < 2; ++round) {
        const auto before = client->counters();
        // Its alarm rings, by the wall clock, at the time that BAR0 is given.
        const std::int64_t when = std::time(nullptr) + 1;
        REQUIRE(client->region_write(0, 0, std::as_bytes(std::span(&when, 1))));
        std::atomic<bool> stop{false};
        std::atomic<std::uint64_t> reads{0};
        std::atomic<int> wrong{0};
        std::vector<std::thread> vcpus;
        // Without a twin socket the sample takes any command that comes now for its DMA reply, so
        // there the client only serves; its own requests come when that is over.
        for (int i = 0; i < 3; ++i) {
          vcpus.emplace_back([&] {
            while (!twin && !stop) serve(*client);
            while (!stop) {
              std::array<std::byte, 4> id{};
              const auto got = client->region_read(wire::kRegionConfig, 0, id);
              wrong += got.value_or(0) == 4 ? 0 : 1;
              ++reads;
            }
          });
        }
        const bool rang = signalled(fd, 20s);
        const auto enough = [&] {
          const auto now = client->counters();
          return now.received[11] >= before.received[11] + 2 &&
                 now.received[12] >= before.received[12] + 4;
        };
        const auto deadline = std::chrono::steady_clock::now() + 20s;
        while (!enough() && std::chrono::steady_clock::now() < deadline) {
          std::this_thread::sleep_for(1ms);
        }
        // A moment more: the sample compares what it has read back, and ends when that is wrong.
        const std::uint64_t seen = reads;
        while (reads < seen + 50 && wrong == 0 && std::chrono::steady_clock::now() < deadline) {
          std::this_thread::sleep_for(1ms);
        }
        stop = true;
        for (auto& vcpu : vcpus) vcpu.join();
        CHECK(rang);
        CHECK(enough());
        CHECK(wrong == 0);
        CHECK((reads > 50) == twin);
        std::array<std::byte, 4> id{};
        CHECK(client->region_read(wire::kRegionConfig, 0, id).value_or(0) == 4);
        CHECK_MESSAGE(server.process->running(), server.process->output());
        CHECK(client->unmask_irqs(wire::kIrqIntx, 0, 1));
      }
      CHECK(std::ranges::any_of(plain, [](std::byte b) { return b != std::byte{0}; }));
      CHECK(std::ranges::any_of(shared.bytes, [](std::byte b) { return b != std::byte{0}; }));
      CHECK(client->alive());
      CHECK(client->counters().timeouts == 0);
      client->close();
    }
  }

  TEST_CASE("server: BAR1 is trapped and mapped where it says so, and the two agree") {
    const Sample server("server", {"-v"});
    auto client = server.connect();
    const auto device = client->attach({});
    REQUIRE(device);
    const vfio_user::Region& bar1 = device->regions[1];
    REQUIRE_MESSAGE(bar1.mappable, bar1.trapped_because);
    REQUIRE(bar1.areas.size() == 2);
    for (const vfio_user::SparseArea& area : bar1.areas) {
      const auto offset = static_cast<off_t>(bar1.file_offset + area.offset);
      void* const at =
          ::mmap(nullptr, area.size, PROT_READ | PROT_WRITE, MAP_SHARED, bar1.area_fd(0), offset);
      REQUIRE(at != MAP_FAILED);
      std::memcpy(at, "outboard", 8);
      std::array<char, 8> seen{};
      CHECK(client->region_read(1, area.offset, std::as_writable_bytes(std::span(seen)))
                .value_or(0) == 8);
      CHECK(std::string(seen.data(), 8) == "outboard");
      ::munmap(at, area.size);
    }
  }

  TEST_CASE(
      "shadow_ioeventfd_server: its entry of 48 bytes is read; nothing of it breaks the client") {
    const Sample server("shadow_ioeventfd_server");
    auto client = server.connect();
    const auto device = client->attach({});
    REQUIRE_MESSAGE(device, (device ? "" : device.error().message));
    std::size_t asked = 0;
    for (const vfio_user::Region& region : device->regions) {
      if (region.size == 0 || region.index > 5) continue;
      const auto offered = client->region_io_fds(region.index);
      CHECK_MESSAGE(offered, (offered ? "" : offered.error().message));
      ++asked;
    }
    CHECK(asked > 0);
    CHECK(client->alive());
    CHECK(client->counters().sent[6] >= asked);
  }
}

}  // namespace outboard::peers
