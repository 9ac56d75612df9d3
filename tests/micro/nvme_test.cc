// The machine with outboard-nvme's controller: what a doorbell costs, in exits and messages.
#include <map>

#include <doctest/doctest.h>

#include "tests/micro/guest_run.h"
#include "tests/unit/nvme_program.h"

using namespace outboard;
using namespace outboard::micro;
using nvme::DoorbellMode;
using nvme::LoopOptions;
using nvme::test::Program;

namespace {

// The machine's counters at each of the guest's marks.
struct Snapshot {
  long memory_exits = 0;
  long bytes_sent = 0;
  long round_trips = 0;
  long bar_writes = 0;
  long asked = 0;  // DEVICE_GET_REGION_IO_FDS
};

// The number in front of `what`; 0 when it is not there.
long number_before(const std::string& text, const std::string& what) {
  const auto end = text.find(what);
  if (end == std::string::npos) return 0;
  const auto begin = text.find_last_not_of("0123456789", end - 1) + 1;
  return std::stol(text.substr(begin, end - begin));
}

Snapshot snapshot(const std::string& statistics) {
  return {number_before(statistics, " memory, "), number_before(statistics, " bytes out"),
          number_before(statistics, " round trips"), number_before(statistics, " BAR writes"),
          number_before(statistics, " DEVICE_GET_REGION_IO_FDS")};
}

Snapshot operator-(const Snapshot& a, const Snapshot& b) {
  return {a.memory_exits - b.memory_exits, a.bytes_sent - b.bytes_sent,
          a.round_trips - b.round_trips, a.bar_writes - b.bar_writes, a.asked - b.asked};
}

struct NvmeRun : GuestRun {
  std::map<std::string, Snapshot> at;
};

void run_nvme(const std::string& guest, const Program& program, NvmeRun& run) {
  auto config = guest_config(guest);
  vmm::DeviceConfig device;
  device.name = "disk";
  device.socket = program.path;
  config.devices.push_back(device);
  run_guest(config, run, [&](vmm::Machine& machine, vmm::EventLoop& loop, MemoryConsole& console) {
    console.on_output([&](const std::string& text) {
      for (const char* name : {"begin", "end", "reset", "trapped"}) {
        if (!("\n" + text).ends_with("\n" + std::string(name) + "\n")) continue;
        loop.post([&, name] {
          run.at[name] = snapshot(machine.statistics());
          console.send("x");
        });
      }
    });
  });
  CHECK_MESSAGE(run.reason.status == vmm::ExitStatus::powered_off, run.reason.message);
  REQUIRE_MESSAGE(run.console.ends_with("PASSED\n"), run.console);
}

}  // namespace

TEST_CASE("shadow doorbells, the server busy: no ring, no exit, no message for any command") {
  LoopOptions options;
  options.spin = std::chrono::hours(1);  // never sleeps
  Program program(DoorbellMode::shadow, options);
  NvmeRun run;
  run_nvme("doorbell_buffer", program, run);
  program.end();
  CHECK(run.console.find("\nrings 0\n") != std::string::npos);
  const Snapshot cost = run.at.at("end") - run.at.at("begin");
  CHECK(cost.memory_exits == 0);
  CHECK(cost.bytes_sent == 0);
  CHECK(program.counters.doorbell_wakes == 0);
  CHECK(program.counters.io[2] == 201);
}

TEST_CASE(
    "C62 shadow doorbells, the server asleep: each command wakes it by an ioeventfd, with no exit "
    "and no message") {
  LoopOptions options;
  options.spin = std::chrono::nanoseconds(0);
  Program program(DoorbellMode::shadow, options);
  NvmeRun run;
  run_nvme("doorbell_sleeper", program, run);
  program.end();
  const Snapshot cost = run.at.at("end") - run.at.at("begin");
  CHECK(cost.memory_exits == 0);
  CHECK(cost.bytes_sent == 0);
  // The guest has rung 100 times; a ring may come while the one before it is still to be noticed.
  CHECK(program.counters.doorbell_wakes > 0);
  CHECK(program.counters.doorbell_wakes <= 100);
  CHECK(program.counters.io[2] == 100);
}

TEST_CASE(
    "a controller reset takes the ioeventfds away: a doorbell is one exit, and one round trip with "
    "the question for the offer in it") {
  Program program(DoorbellMode::shadow);
  NvmeRun run;
  run_nvme("doorbell_buffer", program, run);
  program.end();
  const Snapshot cost = run.at.at("trapped") - run.at.at("reset");
  CHECK(cost.memory_exits == 1);
  CHECK(cost.bar_writes == 1);
  CHECK(cost.asked == 1);
  CHECK(cost.round_trips == 2);  // replies: of the write and of the question, in flight together
  CHECK(program.counters.io[2] == 201);
}

TEST_CASE("--doorbells trap: a doorbell is one exit and one message, and no offer is asked for") {
  Program program(DoorbellMode::trap);
  NvmeRun run;
  run_nvme("doorbell_trapped", program, run);
  program.end();
  const Snapshot cost = run.at.at("trapped") - run.at.at("reset");
  CHECK(cost.memory_exits == 1);
  CHECK(cost.bar_writes == 1);
  CHECK(cost.asked == 0);
}
