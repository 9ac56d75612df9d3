// The machine without devices: exits, memory, CPUs, console, and every way it can end.
#include <array>
#include <cstdio>
#include <future>
#include <numeric>
#include <sstream>

#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include "tests/micro/guest_run.h"
#include "vmm/kvm.h"

using namespace outboard;
using namespace outboard::micro;
using vmm::ExitStatus;

namespace {

// The guest ran to its end and found nothing wrong.
void check_passed(const GuestRun& run) {
  CHECK_MESSAGE(run.reason.status == ExitStatus::powered_off, run.reason.message);
  CHECK_MESSAGE(run.console.ends_with("PASSED\n"), run.console);
}

// The number (in hexadecimal) that the guest printed after `name`.
std::uint64_t printed(const GuestRun& run, const std::string& name) {
  std::istringstream lines(run.console);
  std::string line;
  while (std::getline(lines, line)) {
    if (line.starts_with(name + ' ')) return std::stoull(line.substr(name.size() + 1), nullptr, 16);
  }
  FAIL("the guest did not print " << name << ": " << run.console);
  return 0;
}

}  // namespace

TEST_CASE(
    "PVH: a guest starts in protected mode with EBX at its start info, prints and powers off") {
  GuestRun run;
  run_guest(guest_config("hello"), run);
  check_passed(run);
  CHECK(run.console == "hello, outboard\nPASSED\n");
  CHECK(run.reason.exit_code() == 0);
  // The marks are in the order in which things happen.
  const auto at = [&](vmm::Mark mark) {
    REQUIRE_MESSAGE(run.marks.at(mark).has_value(), vmm::mark_name(mark));
    return *run.marks.at(mark);
  };
  CHECK(at(vmm::Mark::process_start) <= at(vmm::Mark::kvm_ready));
  CHECK(at(vmm::Mark::kernel_loaded) <= at(vmm::Mark::first_run));
  CHECK(at(vmm::Mark::first_run) <= at(vmm::Mark::first_exit));
  CHECK(at(vmm::Mark::first_console_byte) <= at(vmm::Mark::guest_user_space));
  CHECK(at(vmm::Mark::guest_user_space) <= at(vmm::Mark::power_off));
}

TEST_CASE("accesses that no device answers read all ones, drop writes, and are counted") {
  GuestRun run;
  run_guest(guest_config("exits"), run);
  check_passed(run);
  CHECK(run.statistics.find(" 0 accesses that no device answered") == std::string::npos);
}

TEST_CASE("guest memory: all of it is there, below the PCI hole and from 4 GiB up") {
  for (const std::uint64_t size : {64 * vmm::kMiB, 3 * vmm::kGiB, 6 * vmm::kGiB}) {
    CAPTURE(size);
    auto config = guest_config("memory");
    config.memory = size;
    GuestRun run;
    run_guest(config, run);
    check_passed(run);
    const std::uint64_t low = std::min(size, 3 * vmm::kGiB);
    CHECK(printed(run, "top") == (size > low ? 4 * vmm::kGiB + size - low : low));
    CHECK(printed(run, "total") == size - 0x60000);  // all but the legacy hole
  }
}

TEST_CASE("prefault = all: the guest's pages are present before it starts") {
  auto config = guest_config("hello");
  config.memory = 64 * vmm::kMiB;
  config.prefault = vmm::Prefault::all;
  GuestRun run;
  run_guest(config, run);
  check_passed(run);
}

TEST_CASE("CPUID: topology, hypervisor signature, TSC-deadline timer with ARAT") {
  auto config = guest_config("cpuid");
  config.vcpus = 4;
  GuestRun run;
  run_guest(config, run);
  check_passed(run);
  CHECK(((printed(run, "leaf1.ebx") >> 16) & 0xff) == 4);
  CHECK((printed(run, "leaf1.ebx") >> 24) == 0);
  CHECK((printed(run, "leaf1.ecx") >> 31) == 1);
  CHECK(printed(run, "leafb.1.ebx") == 4);
  CHECK(printed(run, "leafb.0.edx") == 0);
  CHECK(printed(run, "hypervisor.ebx") == 0x4b4d564b);  // "KVMK"
  const bool deadline_timer = ((printed(run, "leaf1.ecx") >> 24) & 1) != 0;
  CHECK(((printed(run, "leaf6.eax") >> 2) & 1) == (deadline_timer ? 1 : 0));
}

TEST_CASE("SMP: INIT and SIPI start every other CPU, each with its own APIC id") {
  for (const std::uint32_t vcpus : {1U, 2U, 4U, 16U}) {
    CAPTURE(vcpus);
    auto config = guest_config("smp");
    config.vcpus = vcpus;
    GuestRun run;
    run_guest(config, run);
    check_passed(run);
    CHECK(printed(run, "cpus") == vcpus);
  }
}

TEST_CASE("64 vCPUs are created, and stop while they wait to be started") {
  auto config = guest_config("hello");
  config.vcpus = 64;
  GuestRun run;
  run_guest(config, run);
  check_passed(run);
}

TEST_CASE("console: what is typed arrives by interrupt, byte for byte, in order") {
  std::string typed;
  for (int i = 0; i < 300; ++i) typed += static_cast<char>('A' + i % 26);
  typed += 'q';
  GuestRun run;
  run_guest(guest_config("echo"), run,
            [&](vmm::Machine&, vmm::EventLoop&, MemoryConsole& console) { console.type(typed); });
  CHECK(run.console == "ready\n" + typed + "\nPASSED\n");
}

TEST_CASE("console: 1 MiB typed at once arrives byte for byte, with flow control by RTS") {
  std::string typed;
  for (std::size_t i = 0; i < (1U << 20); ++i) typed += static_cast<char>(i % 251);
  GuestRun run;
  run_guest(
      guest_config("typed"), run,
      [&](vmm::Machine&, vmm::EventLoop&, MemoryConsole& console) { console.type(typed); },
      std::chrono::seconds(120));
  check_passed(run);
}

TEST_CASE("power button: an edge on the GED's GSI reaches the guest, which powers off") {
  GuestRun run;
  run_guest(guest_config("power_button"), run,
            [](vmm::Machine& machine, vmm::EventLoop&, MemoryConsole& console) {
              console.on_output([&machine, pressed = false](const std::string& text) mutable {
                if (text != "ready\n" || std::exchange(pressed, true)) return;
                machine.press_power_button();
              });
            });
  check_passed(run);
  CHECK(printed(run, "presses") == 1);
}

TEST_CASE("power button: a guest that does not answer is stopped at the deadline, status 11") {
  auto config = guest_config("deaf");
  config.power_button_deadline = std::chrono::milliseconds(200);
  GuestRun run;
  run_guest(config, run, [](vmm::Machine& machine, vmm::EventLoop&, MemoryConsole&) {
    machine.press_power_button();
  });
  CHECK(run.reason.exit_code() == 11);
  CHECK(run.reason.message.find("200 ms") != std::string::npos);
}

TEST_CASE("SIGTERM presses the power button; a second one ends the machine, status 128 + 15") {
  GuestRun run;
  run_guest(
      guest_config("deaf"), run, [](vmm::Machine&, vmm::EventLoop& loop, MemoryConsole& console) {
        console.on_output([&loop](const std::string& text) {
          if (text != "ready\n") return;
          ::kill(::getpid(), SIGTERM);
          // Signals of one number do not queue: the second one after the first was taken.
          std::promise<void> taken;
          loop.post(
              [&] { (void)loop.after(std::chrono::milliseconds(50), [&] { taken.set_value(); }); });
          taken.get_future().wait();
          ::kill(::getpid(), SIGTERM);
        });
      });
  CHECK(run.reason.exit_code() == 128 + SIGTERM);
}

TEST_CASE("triple fault: status 9, and the first line says which vCPU") {
  GuestRun run;
  run_guest(guest_config("triple_fault"), run);
  CHECK(run.console == "about to fault\n");
  CHECK(run.reason.exit_code() == 9);
  CHECK(run.reason.message.find("vCPU 0") != std::string::npos);
}

TEST_CASE("KVM internal error: status 10") {
  GuestRun run;
  run_guest(guest_config("no_code"), run);
  CHECK(run.console == "about to jump\n");
  CHECK(run.reason.exit_code() == 10);
}

TEST_CASE("reboot: the machine starts again in place, from power-on state, five times") {
  GuestRun run;
  run_guest(guest_config("reboot"), run);
  check_passed(run);
  CHECK(run.console == "boot 0\nboot 1\nboot 2\nboot 3\nboot 4\nboot 5\nPASSED\n");
  CHECK(run.statistics.find("5 reboots") != std::string::npos);
}

TEST_CASE("a jump to the firmware's reset vector in real mode is a reboot, as Linux needs it") {
  GuestRun run;
  run_guest(guest_config("firmware_reboot"), run, {}, std::chrono::seconds(20));
  check_passed(run);
  CHECK(run.console == "jumping\nPASSED\n");
}

TEST_CASE("on_reboot = \"exit\": a reboot ends the machine, status 0") {
  auto config = guest_config("reboot");
  config.on_reboot = vmm::OnReboot::exit;
  GuestRun run;
  run_guest(config, run);
  CHECK(run.console == "boot 0\n");
  CHECK(run.reason.exit_code() == 0);
}

TEST_CASE("a machine that cannot be made says what and why") {
  auto config = guest_config("does-not-exist");
  GuestRun no_kernel;
  run_guest(config, no_kernel);
  CHECK(no_kernel.reason.exit_code() == 4);
  CHECK(no_kernel.reason.message.find("does-not-exist") != std::string::npos);

  config = guest_config("hello");
  config.vcpu_affinity = {{4000}};
  GuestRun no_cpu;
  run_guest(config, no_cpu);
  CHECK(no_cpu.reason.exit_code() == 3);

  config = guest_config("hello");
  vmm::DeviceConfig device;
  device.name = "disk0";
  device.socket = "/tmp/outboard-micro-no-such-socket";
  config.devices.push_back(device);
  GuestRun no_device;
  run_guest(config, no_device);
  CHECK(no_device.reason.exit_code() == 7);
  CHECK(no_device.reason.message.find("disk0") != std::string::npos);
  CHECK(no_device.reason.message.find("no-such-socket") != std::string::npos);
}
