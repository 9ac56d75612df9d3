// The boot report's JSON, which programs depend on.
#include <string>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "vmm/boot_report.h"
#include "vmm/statistics.h"

using namespace outboard;
using namespace outboard::vmm;
using vfio_user::wire::Command;

namespace {

constexpr auto index_of(Command command) {
  return static_cast<std::size_t>(command);
}

MachineCounters two_vcpus_one_disk() {
  MachineCounters all;
  all.vcpus.resize(2);
  all.vcpus[0].by_kind[static_cast<std::size_t>(ExitKind::port)] = 7;
  all.vcpus[0].by_kind[static_cast<std::size_t>(ExitKind::memory)] = 20;
  all.vcpus[1].by_kind[static_cast<std::size_t>(ExitKind::memory)] = 3;
  all.vcpus[1].by_kind[static_cast<std::size_t>(ExitKind::shutdown)] = 1;
  all.vcpus[1].unanswered = 2;
  DeviceCounters& disk = all.devices.emplace_back();
  disk.name = "disk0";
  disk.attach_round_trips = 4;
  disk.messages.sent[index_of(Command::region_write)] = 5;
  disk.messages.bytes_out[index_of(Command::region_write)] = 8 * 36;
  disk.messages.bytes_in[index_of(Command::region_write)] = 5 * 32;
  disk.messages.posted = 10;
  disk.messages.posted_alone = 3;  // the other 7 shared messages
  disk.messages.sent[index_of(Command::region_write_multi)] = 2;
  disk.messages.bytes_out[index_of(Command::region_write_multi)] = 400;
  disk.messages.received[index_of(Command::dma_read)] = 6;
  disk.messages.round_trips = 44;
  disk.link = {.state = devices::LinkState::reconnecting,
               .losses = 3,
               .attempts = 5,
               .resumes = 1,
               .resets = 1,
               .slow_spells = 0,
               .unserved = 7,
               .repeated = 2,
               .recovery = {.count = 2,
                            .p50 = std::chrono::milliseconds(12),
                            .p99 = std::chrono::milliseconds(42),
                            .worst = std::chrono::milliseconds(42)},
               .stall = {}};
  return all;
}

nlohmann::json parsed(const BootReport& report) {
  return nlohmann::json::parse(to_json(report));
}

}  // namespace

TEST_CASE("boot report: schema 1, machine, marks in the order of time from process start") {
  MachineConfig config;
  config.vcpus = 2;
  config.memory = 512 * kMiB;
  config.page_size = PageSize::m2;
  config.kernel = "/boot/vmlinux \xff";
  Marks marks;
  marks.stamp_at(Mark::process_start, 1'000);
  marks.stamp_at(Mark::program_loaded, 1'500);
  marks.stamp_at(Mark::first_run, 9'000);
  marks.stamp_at(Mark::power_off, 10'000);
  marks.add_device("disk0").stamp_at(devices::DeviceMark::described, 7'000);
  BootReport report{.config = config, .marks = marks, .host = {"CPU", "6.1.0", true}};
  report.counters = two_vcpus_one_disk();
  report.at_first_run = MemoryUse{1, 2, 3};
  report.at_end = MemoryUse{4, 5, 6};
  const auto json = parsed(report);
  CHECK(json["schema"] == 1);
  CHECK(json["outboard"] == OUTBOARD_VERSION);
  CHECK(json["exit_status"] == 0);
  CHECK(json["stop_reason"] == "power-off");
  CHECK(json["clock"]["start_monotonic_ns"] == 1'000);
  CHECK(json["clock"]["started_by"] == "parent");
  CHECK(json["machine"]["vcpus"] == 2);
  CHECK(json["machine"]["memory_bytes"] == 536870912);
  CHECK(json["machine"]["page_size"] == "2M");
  CHECK(json["machine"]["cpu_model"] == "CPU");
  CHECK(json["machine"]["host_kernel"] == "6.1.0");
  CHECK(json["machine"]["kvm"] == "hardware");
  REQUIRE(json["marks"].size() == 5);
  CHECK(json["marks"][0]["key"] == "process_start");
  CHECK(json["marks"][0]["ns"] == 0);
  CHECK(json["marks"][2]["device"] == "disk0");
  CHECK(json["marks"][2]["key"] == "described");
  CHECK(json["marks"][2]["ns"] == 6'000);
  CHECK(json["marks"][3]["name"] == "first KVM_RUN");
  CHECK_FALSE(json["marks"][3].contains("device"));
  CHECK(json["rss"]["anon_bytes"] == 4);
  CHECK(json["rss"]["file_bytes"] == 5);
  CHECK(json["rss"]["shmem_bytes"] == 6);
  CHECK(json["rss"]["at_first_run"]["anon_bytes"] == 1);
}

TEST_CASE("boot report: exits by kind, of each vCPU and together; messages by command with bytes") {
  const MachineConfig config;
  const Marks marks;
  BootReport report{.config = config, .marks = marks, .host = {}};
  report.counters = two_vcpus_one_disk();
  const auto json = parsed(report);
  CHECK(json["exits"]["port"] == 7);
  CHECK(json["exits"]["memory"] == 23);
  CHECK(json["exits"]["shutdown"] == 1);
  CHECK(json["exits"].size() == kExitKinds);
  CHECK(json["vcpus"][1]["index"] == 1);
  CHECK(json["vcpus"][1]["exits"]["memory"] == 3);
  CHECK(json["vcpus"][1]["unanswered_accesses"] == 2);
  const auto& disk = json["devices"][0];
  CHECK(disk["name"] == "disk0");
  CHECK(disk["messages"]["REGION_WRITE"]["sent"] == 8);
  CHECK(disk["messages"]["REGION_WRITE"]["bytes_out"] == 288);
  CHECK(disk["messages"]["REGION_WRITE"]["bytes_in"] == 160);
  CHECK(disk["messages"]["DMA_READ"]["received"] == 6);
  CHECK(disk["messages"].size() == 3);  // what never was is not listed
  CHECK(disk["posted_writes"] == 10);
  CHECK(disk["round_trips"] == 44);
  CHECK(disk["attach_round_trips"] == 4);
  CHECK(disk["bytes_out"] == 688);
  CHECK(disk["bytes_in"] == 160);
  CHECK(disk["completion_shared_vector"] == false);
  CHECK(disk["link"]["state"] == "reconnecting");
  CHECK(disk["link"]["losses"] == 3);
  CHECK(disk["link"]["resumes"] == 1);
  CHECK(disk["link"]["resets"] == 1);
  CHECK(disk["link"]["recovery"]["p99_us"] == 42'000);
}

TEST_CASE("boot report: of a machine that never was it has the end, and no devices") {
  const MachineConfig config;
  Marks marks;
  marks.stamp_at(Mark::process_start, 1'000);
  marks.stamp_at(Mark::program_loaded, 1'000);
  BootReport report{.config = config, .marks = marks, .host = {}};
  report.exit_status = 7;
  report.message = "device 'disk0': no such socket";
  const auto json = parsed(report);
  CHECK(json["exit_status"] == 7);
  CHECK(json["stop_reason"] == "device-attach");
  CHECK(json["message"] == "device 'disk0': no such socket");
  CHECK(json["clock"]["started_by"] == "constructor");
  CHECK(json["machine"]["kvm"] == "software");
  CHECK(json["devices"].empty());
  CHECK(json["devices"].is_array());
  CHECK(json["vcpus"].empty());
  CHECK(json["exits"]["memory"] == 0);
  CHECK(json["rss"].is_null());
}

TEST_CASE("boot report: every exit status has a word") {
  Marks marks;
  CHECK(stop_reason(0, marks) == "ended");  // by the keyboard, or a reboot with on_reboot = "exit"
  marks.stamp_at(Mark::power_off, 5);
  CHECK(stop_reason(0, marks) == "power-off");
  CHECK(stop_reason(1, marks) == "internal-error");
  CHECK(stop_reason(4, marks) == "boot-image");
  CHECK(stop_reason(5, marks) == "no-kvm");
  CHECK(stop_reason(8, marks) == "device-lost");
  CHECK(stop_reason(9, marks) == "triple-fault");
  CHECK(stop_reason(11, marks) == "deadline");
  CHECK(stop_reason(128 + 15, marks) == "signal");
}

TEST_CASE("--stats and SIGUSR1: the same counters as text, with bytes by command and memory") {
  const Marks marks;
  MachineCounters counters = two_vcpus_one_disk();
  counters.devices[0].completion_shared_vector = true;
  counters.devices[0].messages.bytes_sent = 700;
  const std::string text = statistics_text(marks, counters, MemoryUse{3 << 20, 2 << 20, 1 << 20});
  const auto has = [&](const std::string& part) { return text.find(part) != std::string::npos; };
  CHECK(has(
      "exits: 7 port, 23 memory, 0 interrupted, 1 other; 2 accesses that no device answered\n"));
  CHECK(has("exits of vCPU 1: 0 port, 3 memory"));
  CHECK(
      has("8 REGION_WRITE (288 B out, 160 B in), 2 REGION_WRITE_MULTI (400 B out, 0 B in); 700 "
          "bytes out"));
  CHECK(has("served 6 DMA_READ (0 B out, 0 B in)"));
  CHECK(has("44 round trips, 10 posted\n"));
  CHECK(has("device 'disk0': attached in 4 dependent round trips\n"));
  CHECK(has(
      "device 'disk0': server reconnecting, lost 3 times, back 2 times (1 resumed, 1 reset) in 5 "
      "attempts; 2 accesses sent again, 7 not served; back after p50 12.0 ms, p99 42.0 ms, worst "
      "42.0 ms\n"));
  CHECK(has("device 'disk0': one vector serves its admin and I/O queues\n"));
  CHECK(has("memory: 3072 KiB anonymous, 2048 KiB of files, 1024 KiB shared\n"));
}
