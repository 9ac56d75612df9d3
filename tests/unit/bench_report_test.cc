#include <doctest/doctest.h>

#include "tools/bench/boot_report.h"
#include "tools/bench/disk_server.h"
#include "tools/bench/guest_run.h"

using namespace outboard::bench;

namespace {

const std::string kWhole = R"({
  "schema": 1, "outboard": "0.1.0", "exit_status": 0, "stop_reason": "power-off",
  "clock": {"start_monotonic_ns": 5000000000, "started_by": "parent"},
  "machine": {"vcpus": 1, "memory_bytes": 536870912, "page_size": "4K", "kvm": "software"},
  "marks": [{"key": "first_run", "name": "first KVM_RUN", "ns": 9000000},
            {"device": "nvme0", "key": "described", "name": "described", "ns": 7000000}],
  "exits": {"port": 3, "halt": 1},
  "vcpus": [{"index": 0, "exits": {"port": 3}}],
  "devices": [{"name": "nvme0", "messages": {"VERSION": {"sent": 1}}, "round_trips": 17,
               "attach_round_trips": 4, "bytes_out": 900, "bytes_in": 800,
               "completion_shared_vector": true}],
  "rss": {"anon_bytes": 2000, "file_bytes": 3000, "shmem_bytes": 4000,
          "at_first_run": {"anon_bytes": 1000, "file_bytes": 1500, "shmem_bytes": 0}}
})";

std::string without(const std::string& part, const std::string& instead = "") {
  std::string text = kWhole;
  const auto at = text.find(part);
  REQUIRE(at != std::string::npos);
  return text.replace(at, part.size(), instead);
}

}  // namespace

TEST_CASE("a boot report is read: marks in order of time, exits, messages, memory") {
  const auto report = parse_boot_report(kWhole);
  REQUIRE(report.has_value());
  CHECK(report->version == "0.1.0");
  CHECK(report->start == 5'000'000'000);
  CHECK(report->started_by_parent);
  REQUIRE(report->marks.size() == 2);
  CHECK(report->marks[0].device == "nvme0");
  CHECK(report->marks[0].key == "described");
  CHECK(report->marks[1].at == 9e6);
  CHECK(report->counts.at("port exits") == 3);
  CHECK(report->counts.at("nvme0: attach round trips") == 4);
  REQUIRE(report->memory_at_first_run.has_value());
  CHECK(report->memory_at_first_run->own() == 2500);
  CHECK(report->memory->own() == 5000);
  CHECK(report->shared_vectors == std::vector<std::string>{"nvme0"});
}

TEST_CASE("a report that is no JSON, cut short or of another schema is refused with a reason") {
  CHECK(parse_boot_report("").error().find("no JSON") != std::string::npos);
  CHECK(parse_boot_report(kWhole.substr(0, 300)).error().find("JSON") != std::string::npos);
  CHECK(parse_boot_report("[]").error().find("schema") != std::string::npos);
  CHECK(parse_boot_report("7").error().find("schema") != std::string::npos);
  CHECK(parse_boot_report(without("\"schema\": 1", "\"schema\": 2")).error().find("schema is 2") !=
        std::string::npos);
}

TEST_CASE("a report without a clock, without marks, or with a mark without a time is refused") {
  CHECK_FALSE(parse_boot_report(without("\"start_monotonic_ns\": 5000000000, ")).has_value());
  CHECK_FALSE(parse_boot_report(without("\"marks\"", "\"other\"")).has_value());
  CHECK_FALSE(parse_boot_report(without(", \"ns\": 9000000")).has_value());
  CHECK_FALSE(parse_boot_report(without("\"ns\": 9000000", "\"ns\": \"soon\"")).has_value());
  CHECK_FALSE(parse_boot_report(without("\"key\": \"first_run\", ")).has_value());
}

TEST_CASE("what a report does not say is left out, not guessed") {
  const auto report = parse_boot_report(
      R"({"schema": 1, "clock": {"start_monotonic_ns": 1}, "marks": [], "rss": {}, "devices": 3})");
  REQUIRE(report.has_value());
  CHECK(report->marks.empty());
  CHECK_FALSE(report->memory.has_value());
  CHECK_FALSE(report->memory_at_first_run.has_value());
  CHECK_FALSE(report->started_by_parent);
  CHECK(report->counts.empty());
}

TEST_CASE("the server's line gives four marks of a kernel's boot, and none of firmware's") {
  const std::string line =
      R"({"connected_ns": 10, "enabled_ns": 20, "doorbell_ns": 30, "fetched_ns": 31, )"
      R"("read_ns": 40, "interrupt": true})";
  const auto marks = marks_of_line(line);
  REQUIRE(marks.size() == 4);
  CHECK(marks[0].key == kServerConnected);
  CHECK(marks[3].key == kServerRead);
  CHECK(marks[3].at == 40);
  std::string firmware = line;
  firmware.replace(firmware.find("true"), 4, "false");
  CHECK(marks_of_line(firmware).empty());
  CHECK(marks_of_line("").empty());
  CHECK(marks_of_line("{").empty());
  CHECK(marks_of_line("[1]").empty());
}

TEST_CASE("memory is RssAnon, RssFile and RssShmem of /proc/PID/status, in bytes") {
  const auto memory = memory_of_status(
      "Name:\toutboard\nVmRSS:\t    9000 kB\nRssAnon:\t    1024 kB\nRssFile:\t    2048 kB\n"
      "RssShmem:\t    4 kB\n");
  REQUIRE(memory.has_value());
  CHECK(memory->own() == 3 * 1048576);
  CHECK(memory->shared == 4096);
  CHECK_FALSE(memory_of_status("Name:\tzombie\n").has_value());
}
