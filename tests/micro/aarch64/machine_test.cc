// The arm64 machine on real KVM: boot protocol, PSCI, the GIC's pins and its reset, failures.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <thread>

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/pci_host.h"
#include "tests/micro/guest_run.h"
#include "vmm/arch.h"
#include "vmm/board.h"
#include "vmm/guest_image.h"
#include "vmm/vcpu_set.h"

using namespace outboard;
using namespace outboard::micro;

namespace {

// Signals in the counter of `fd`, waited for up to `milliseconds`.
std::uint64_t drain(int fd, int milliseconds) {
  pollfd ready{fd, POLLIN, 0};
  std::uint64_t count = 0;
  if (::poll(&ready, 1, milliseconds) == 1) (void)!::read(fd, &count, sizeof count);
  return count;
}

// A board with one vCPU at the entry of a guest.
struct Bench {
  explicit Bench(const std::string& name) {
    const auto config = guest_config(name);
    auto made = vmm::Board::create(config);
    REQUIRE_MESSAGE(made, made.error().message);
    board = std::move(*made);
    auto vcpus = board->power_on(1);
    REQUIRE_MESSAGE(vcpus, vcpus.error().message);
    auto image = vmm::GuestImage::open(config);
    REQUIRE(image);
    auto entry = image->load(board->memory(), board->layout(), {.vcpus = 1});
    REQUIRE_MESSAGE(entry, entry.error().message);
    REQUIRE(board->cpus().enter(vcpus->front(), *entry));
    auto made_set =
        vmm::VcpuSet::create(std::move(*vcpus), board->bus(), marks, [](vmm::VcpuEvent) {}, {});
    REQUIRE(made_set);
    set = std::move(*made_set);
  }

  std::uint32_t word(std::uint64_t at) const {
    std::uint32_t value = 0;
    std::memcpy(&value, board->memory().at(at, 4).data(), sizeof value);
    return value;
  }
  bool becomes(std::uint64_t at, std::uint32_t value) const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (word(at) != value && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    return word(at) == value;
  }

  std::unique_ptr<vmm::Board> board;
  vmm::Marks marks;
  std::unique_ptr<vmm::VcpuSet> set;
};

constexpr std::uint64_t kShared = 0x4600'0000;

}  // namespace

TEST_CASE("booting.rst: the guest begins in EL1 with the device tree in X0; PSCI powers off") {
  GuestRun run;
  run_guest(guest_config("hello"), run);
  CHECK(run.console == "hello\n");
  CHECK(run.reason.exit_code() == 0);
}

TEST_CASE("PSCI CPU_ON: four vCPUs come up, each with the MPIDR of its node") {
  auto config = guest_config("smp");
  config.vcpus = 4;
  GuestRun run;
  run_guest(config, run);
  CHECK(run.console == "4 up\n");
  CHECK(run.reason.exit_code() == 0);
}

TEST_CASE("PSCI SYSTEM_RESET: the machine starts again in place, from power-on state, five times") {
  auto config = guest_config("reboot");
  config.vcpus = 2;
  GuestRun run;
  run_guest(config, run);
  CHECK(run.console == "boot 0\nboot 1\nboot 2\nboot 3\nboot 4\nboot 5\nPASSED\n");
  CHECK(run.reason.exit_code() == 0);
  CHECK(run.statistics.find("5 reboots") != std::string::npos);
}

TEST_CASE("an access that KVM cannot decode: status 10, the reason in words") {
  GuestRun run;
  run_guest(guest_config("no_syndrome"), run);
  CHECK(run.console == "about to load\n");
  CHECK(run.reason.exit_code() == 10);
  CHECK(run.reason.message.find("cannot decode") != std::string::npos);
}

TEST_CASE("a register dump names the program counter and what lies there") {
  Bench bench("level");
  const std::string dump =
      vmm::arch::register_dump(bench.set->vcpus().front(), bench.board->memory());
  CAPTURE(dump);
  CHECK(dump.find("pc  0000000040000000") != std::string::npos);
  CHECK(dump.find("x30 0000000000000000") != std::string::npos);
  CHECK(dump.find("pstate 00000000000003c5") != std::string::npos);
  CHECK(dump.find("SCTLR_EL1") != std::string::npos);
  CHECK(dump.find("unreadable") == std::string::npos);
  CHECK(dump.find("bytes at pc: 10 00 00 14") != std::string::npos);  // b .+64
}

TEST_CASE("resample irqfd: one EOI of the guest is one signal, one trigger is one interrupt") {
  Bench bench("level");
  vfio_user::UniqueFd trigger(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  vfio_user::UniqueFd resample(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const std::uint64_t one = 1;
  bench.set->resume();
  REQUIRE(bench.becomes(kShared + 4, 1));
  REQUIRE(bench.board->intx().connect(*vmm::arch::intx_gsi(1), trigger.get(), resample.get()));
  for (std::uint32_t i = 1; i <= 100; ++i) {
    REQUIRE(::write(trigger.get(), &one, sizeof one) == sizeof one);
    REQUIRE(drain(resample.get(), 20'000) == 1);
    REQUIRE(bench.becomes(kShared, i));
  }
  CHECK(drain(resample.get(), 100) == 0);
  // Disconnected, the trigger keeps its count; connected again, it is one interrupt.
  bench.board->intx().disconnect(*vmm::arch::intx_gsi(1), trigger.get());
  REQUIRE(::write(trigger.get(), &one, sizeof one) == sizeof one);
  CHECK(drain(resample.get(), 100) == 0);
  REQUIRE(bench.board->intx().connect(*vmm::arch::intx_gsi(1), trigger.get(), resample.get()));
  CHECK(drain(resample.get(), 20'000) == 1);
  CHECK(bench.becomes(kShared, 101));
  bench.set->stop();
}

TEST_CASE("ports of the PCI bus are answered in their window") {
  class Port final : public devices::BusDevice {
   public:
    void read(std::uint64_t offset, std::span<std::byte> data) override {
      const std::uint32_t value = offset == 0x40 ? 0x11223344 : 0;
      std::memcpy(data.data(), &value, std::min(data.size(), sizeof value));
    }
    void write(std::uint64_t offset, std::span<const std::byte> data) override {
      if (offset == 0x44 && data.size() == 4) std::memcpy(&written, data.data(), 4);
    }
    std::uint32_t written = 0;
  };
  Bench bench("ports");
  // Only what the guest asks for: the console's bytes are dropped, and its status is ready.
  class Serial final : public devices::BusDevice {
   public:
    void read(std::uint64_t, std::span<std::byte> data) override {
      std::ranges::fill(data, std::byte{0x60});
    }
    void write(std::uint64_t offset, std::span<const std::byte> data) override {
      if (offset == 0) text += static_cast<char>(data[0]);
    }
    std::string text;
  };
  Port port;
  Serial serial;
  devices::PciHost pci;
  auto& bus = bench.board->bus();
  bus.map(devices::Space::pio, 0x1000, 0x100, port, devices::Priority::bar);
  bus.map(devices::Space::mmio, vmm::arch::wiring().uart.base, 8, serial, devices::Priority::fixed);
  bus.map(devices::Space::mmio, bench.board->layout().ecam_base, devices::PciHost::kEcamSize,
          pci.ecam(), devices::Priority::fixed);
  bench.set->resume();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (bench.set->counters().front().of(vmm::ExitKind::system_event) == 0 &&
         std::chrono::steady_clock::now() < end) {
    std::this_thread::yield();
  }
  bench.set->stop();
  CHECK(serial.text == "PASSED\n");
  CHECK(port.written == 0x55667788);
}
