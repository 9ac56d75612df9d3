// `outboard run` with --boot-report and --trace: what the files say of a guest is what it did.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <thread>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tests/micro/guest_run.h"
#include "tests/micro/peer.h"
#include "tests/unit/nvme_program.h"
#include "vmm/commands.h"
#include "vmm/exit_status.h"

using namespace outboard;
using namespace outboard::micro;
namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

struct Recorded {
  int status = 0;
  std::string console;
  Json report, trace;
};

// The program itself, without its command line.
Recorded record(const std::string& guest, const std::string& device = {}, unsigned vcpus = 1) {
  std::string folder = (fs::temp_directory_path() / "outboard-report.XXXXXX").string();
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  std::ofstream(folder + "/m.toml")
      << "[machine]\nmemory = \"128M\"\nvcpus = " << vcpus << "\n[kernel]\npath = \""
      << OUTBOARD_GUESTS << "/" << guest << "\"\n[console]\ntype = \"file\"\npath = \"console\"\n"
      << device;
  vmm::RunCommand command;
  command.config.file = folder + "/m.toml";
  command.boot_report = folder + "/report.json";
  command.trace = folder + "/trace.json";
  vmm::Marks marks;
  marks.stamp(vmm::Mark::process_start);
  Recorded run;
  command.sandbox = true;
  // A thread of its own, since it does not leave the sandbox.
  std::thread([&] { run.status = vmm::run_machine(command, marks); }).join();
  std::ifstream console(folder + "/console");
  run.console.assign(std::istreambuf_iterator<char>(console), {});
  run.report = Json::parse(std::ifstream(command.boot_report));
  run.trace = Json::parse(std::ifstream(command.trace));
  fs::remove_all(folder);
  return run;
}

std::string device_on(const std::string& socket, const std::string& more = {}) {
  return "[[device]]\nname = \"disk0\"\nsocket = \"" + socket + "\"\n" + more;
}

// How often each name occurs among the complete events of one process.
std::map<std::string, std::uint64_t> counted(const Json& trace, int process) {
  std::map<std::string, std::uint64_t> counts;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] == "X" && event["pid"] == process) ++counts[event["name"].get<std::string>()];
  }
  return counts;
}

std::set<std::string> tracks(const Json& trace) {
  std::set<std::string> names;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] == "M" && event["args"].contains("name")) {
      names.insert(event["args"]["name"].get<std::string>());
    }
  }
  return names;
}

// The time of a mark; the test fails when there is none.
std::int64_t mark(const Json& report, const std::string& key) {
  for (const Json& one : report["marks"]) {
    if (one["key"] == key) return one["ns"];
  }
  FAIL("no mark " << key << " in " << report["marks"].dump());
  return 0;
}

void check_order(const Json& report, const std::vector<std::string>& keys) {
  std::int64_t before = 0;
  for (const std::string& key : keys) {
    CAPTURE(key);
    const std::int64_t now = mark(report, key);
    CHECK(now >= before);
    before = now;
  }
}

// Every message in the counters is in the trace, once.
void check_messages(const Recorded& run) {
  const auto events = counted(run.trace, 2);
  const Json& messages = run.report["devices"][0]["messages"];
  std::uint64_t bytes_out = 0;
  for (const auto& [name, figures] : messages.items()) {
    CAPTURE(name);
    REQUIRE(events.contains(name));
    CHECK(events.at(name) ==
          figures["sent"].get<std::uint64_t>() + figures["received"].get<std::uint64_t>());
    bytes_out += figures["bytes_out"].get<std::uint64_t>();
  }
  CHECK(events.size() == messages.size());
  CHECK(run.report["devices"][0]["bytes_out"] == bytes_out);
}

}  // namespace

TEST_CASE("boot report: exits by kind are what the guest did; the trace has each of them once") {
  const Recorded run = record("hello");
  REQUIRE(run.status == 0);
  const std::string said = "hello, outboard\nPASSED\n";
  REQUIRE(run.console == said);
  const Json& exits = run.report["exits"];
  // A look at the UART's status and a byte for each character, the boot mark, power-off.
  CHECK(exits["port"] == 2 * said.size() + 2);
  CHECK(exits["memory"] == 0);
  CHECK(exits["shutdown"] == 0);
  CHECK(exits["failure"] == 0);
  CHECK(run.report["vcpus"][0]["exits"] == exits);
  CHECK(run.report["vcpus"].size() == 1);

  const auto events = counted(run.trace, 1);
  CHECK(events.at("port read") == said.size());
  CHECK(events.at("port write") == said.size() + 2);
  const std::uint64_t interrupted = events.contains("interrupted") ? events.at("interrupted") : 0;
  CHECK(exits["interrupted"] == interrupted);
  const auto to_console = [](const Json& event) {
    return event["name"] == "port write" && event["args"]["address"] == "0x3f8";
  };
  CHECK(std::ranges::count_if(run.trace["traceEvents"], to_console) == std::ssize(said));
  CHECK(tracks(run.trace) == std::set<std::string>{"outboard", "vcpu0"});
  CHECK(run.trace["otherData"]["dropped_events"] == 0);
}

TEST_CASE("boot report: the end, the machine and the marks in order, all within the run") {
  const auto before = std::chrono::steady_clock::now();
  const Recorded run = record("hello");
  const std::chrono::nanoseconds took = std::chrono::steady_clock::now() - before;
  CHECK(run.report["schema"] == 1);
  CHECK(run.report["exit_status"] == 0);
  CHECK(run.report["stop_reason"] == "power-off");
  CHECK(run.report["machine"]["memory_bytes"] == 128 * vmm::kMiB);
  CHECK(run.report["machine"]["kernel"] == std::string(OUTBOARD_GUESTS) + "/hello");
  CHECK_FALSE(run.report["machine"]["cpu_model"].get<std::string>().empty());
  check_order(run.report, {"process_start", "configuration_read", "kvm_ready", "kernel_loaded",
                           "devices_attached", "first_run", "first_exit", "first_console_byte",
                           "guest_user_space", "power_off"});
  CHECK(mark(run.report, "process_start") == 0);
  CHECK(mark(run.report, "first_run") > 0);
  CHECK(mark(run.report, "power_off") < took.count());
  // The same marks are in the trace.
  const auto instants = std::ranges::count_if(run.trace["traceEvents"],
                                              [](const Json& event) { return event["ph"] == "i"; });
  CHECK(instants == std::ssize(run.report["marks"]));
  const Json& rss = run.report["rss"];
  CHECK(rss["anon_bytes"] > 100'000);
  CHECK(rss["file_bytes"] > 100'000);
  CHECK(rss["shmem_bytes"] > 4096);  // the guest's pages
  CHECK(rss["at_first_run"]["anon_bytes"] > 100'000);
}

TEST_CASE("trace: a track for each vCPU and device, and each message once, DMA included") {
  Peer peer;
  const Recorded run = record("pci", device_on(peer.socket()), 2);
  REQUIRE_MESSAGE(run.console.ends_with("PASSED\n"), run.console);
  check_messages(run);
  const auto names = tracks(run.trace);
  for (const char* name : {"outboard", "vcpu0", "vcpu1", "device disk0", "messages"}) {
    CHECK(names.contains(name));
  }
  const Json& exits = run.report["exits"];
  const auto events = counted(run.trace, 1);
  CHECK(exits["memory"] == events.at("memory read") + events.at("memory write"));
  CHECK(exits["port"] == events.at("port read") + events.at("port write"));
  check_order(run.report, {"connected", "negotiated", "mapped", "described", "devices_attached",
                           "first_run", "config_access", "memory_decoding", "bar_access"});
  CHECK(run.report["devices"][0]["bar_reads"] > 0);
  // Each read of a BAR is inside the exit that caused it.
  std::size_t reads = 0;
  for (const Json& message : run.trace["traceEvents"]) {
    if (message["name"] != "REGION_READ" || message["args"]["region"] == 7) continue;
    ++reads;
    const double sent = message["ts"];
    const double answered = sent + message["dur"].get<double>();
    const auto holds = [&](const Json& event) {
      if (event["name"] != "memory read" && event["name"] != "port read") return false;
      const double began = event["ts"];
      const double ended = began + event["dur"].get<double>();
      return began <= sent && answered <= ended + 0.0015;  // of thousandths, rounded
    };
    CHECK(std::ranges::count_if(run.trace["traceEvents"], holds) == 1);
  }
  CHECK(reads > 0);
}

TEST_CASE("attach of outboard-nvme costs 4 dependent round trips at most, and the report says so") {
  nvme::test::Program program(nvme::DoorbellMode::trap);
  const Recorded run = record("hello", device_on(program.path));
  program.end();
  REQUIRE(run.status == 0);
  const Json& disk = run.report["devices"][0];
  CHECK(disk["attach_round_trips"] <= 4);
  CHECK(disk["attach_round_trips"] >= 2);
  CHECK(disk["completion_shared_vector"] == false);
  check_messages(run);
  check_order(run.report, {"negotiated", "described", "devices_attached", "first_run"});
}

TEST_CASE(
    "boot report after a device was lost and after a triple fault: status, reason, counters") {
  const Recorded fault = record("triple_fault");
  CHECK(fault.status == 9);
  CHECK(fault.report["exit_status"] == 9);
  CHECK(fault.report["stop_reason"] == "triple-fault");
  CHECK(fault.report["message"].get<std::string>().find("vCPU 0") != std::string::npos);
  CHECK(fault.report["exits"]["shutdown"] == 1);
  CHECK(counted(fault.trace, 1).at("shutdown") == 1);

  const Recorded unattached = record("hello", device_on("/tmp/outboard-micro-no-such-socket"));
  CHECK(unattached.status == 7);
  CHECK(unattached.report["stop_reason"] == "device-attach");
  CHECK(unattached.report["devices"].empty());
}
