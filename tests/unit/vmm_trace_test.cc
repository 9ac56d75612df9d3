// The trace: what is kept of a run, and the JSON that Perfetto opens.
#include <chrono>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "vmm/trace.h"
#include "vmm/trace_file.h"

using namespace outboard;
using namespace outboard::vmm;
using vfio_user::ObservedMessage;
using vfio_user::wire::Command;

namespace {

constexpr std::uint64_t kStart = 5'000'000'000;

std::chrono::steady_clock::time_point at(std::uint64_t nanoseconds) {
  return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(kStart + nanoseconds));
}

ObservedMessage message(Command command, std::uint64_t sent, std::uint64_t ended) {
  ObservedMessage one;
  one.command = command;
  one.sent = at(sent);
  one.ended = at(ended);
  return one;
}

nlohmann::json written(const Trace& trace, const Marks& marks, std::uint32_t vcpus = 1) {
  std::string text;
  write_trace(trace, marks, vcpus, [&](std::string_view piece) { text += piece; });
  return nlohmann::json::parse(text);
}

// The names of the processes, and of their tracks as "process/track".
std::map<std::string, std::string> names_of(const nlohmann::json& trace) {
  std::map<std::string, std::string> names;
  for (const auto& event : trace["traceEvents"]) {
    const std::string key = std::to_string(event["pid"].get<int>());
    if (event["name"] == "process_name") names[key] = event["args"]["name"];
    if (event["name"] == "thread_name") {
      names[key + "/" + std::to_string(event["tid"].get<int>())] = event["args"]["name"];
    }
  }
  return names;
}

std::vector<nlohmann::json> events_of(const nlohmann::json& trace, const std::string& phase) {
  std::vector<nlohmann::json> found;
  for (const auto& event : trace["traceEvents"]) {
    if (event["ph"] == phase) found.push_back(event);
  }
  return found;
}

struct Started {
  Started() { marks.stamp_at(Mark::process_start, kStart); }
  Marks marks;
};

}  // namespace

TEST_CASE("an event log keeps the first events of all threads, and counts those without room") {
  EventLog<int> log(1000);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&log, thread] {
      for (int i = 0; i < 300; ++i) log.add(1000 * thread + i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(log.dropped() == 200);
  const auto events = log.events();
  CHECK(events.size() == 1000);
  CHECK(std::set<int>(events.begin(), events.end()).size() == 1000);  // none twice
}

TEST_CASE("trace: a named track for each vCPU and each device, though nothing happened there") {
  Trace trace;
  (void)trace.add_device("disk0");
  (void)trace.add_device("a \"name\"\\");
  const auto names = names_of(written(trace, Started().marks, 2));
  CHECK(names.at("1") == "outboard");
  CHECK(names.at("1/1") == "vcpu0");
  CHECK(names.at("1/2") == "vcpu1");
  CHECK(names.at("2") == "device disk0");
  CHECK(names.at("2/1") == "messages");
  CHECK(names.at("3") == "device a \"name\"\\");
  CHECK(names.size() == 7);
}

TEST_CASE("trace: an exit is a complete event on its vCPU's track, with kind and address") {
  Trace trace;
  trace.exit({.began = kStart + 2'000,
              .ended = kStart + 13'500,
              .address = 0xfebd0014,
              .size = 4,
              .vcpu = 1,
              .kind = ExitKind::memory,
              .write = true});
  trace.exit({.began = kStart + 1'000,
              .ended = kStart + 1'001,
              .address = 0x3fd,
              .size = 1,
              .kind = ExitKind::port});
  trace.exit({.began = kStart + 20'000, .ended = kStart + 20'000, .kind = ExitKind::interrupted});
  const auto exits = events_of(written(trace, Started().marks, 2), "X");
  REQUIRE(exits.size() == 3);  // in the order of time
  CHECK(exits[0]["name"] == "port read");
  CHECK(exits[0]["tid"] == 1);
  CHECK(exits[1]["name"] == "memory write");
  CHECK(exits[1]["pid"] == 1);
  CHECK(exits[1]["tid"] == 2);
  CHECK(exits[1]["ts"] == 2.0);  // microseconds since process start
  CHECK(exits[1]["dur"] == 11.5);
  CHECK(exits[1]["args"]["address"] == "0xfebd0014");
  CHECK(exits[1]["args"]["size"] == 4);
  CHECK(exits[2]["name"] == "interrupted");
  CHECK_FALSE(exits[2].contains("args"));
}

TEST_CASE("trace: a message is a complete event of its device, with command, place and latency") {
  Trace trace;
  (void)trace.add_device("disk0");
  auto& disk1 = trace.add_device("disk1");
  ObservedMessage write = message(Command::region_write, 7'000, 19'250);
  write.index = 0;
  write.address = 0x1000;
  write.size = 4;
  write.id = 9;
  write.bytes_out = 36;
  write.bytes_in = 32;
  disk1.message(write);
  ObservedMessage dma = message(Command::dma_read, 30'000, 31'000);
  dma.from_server = true;
  dma.address = 0x123456789000;
  dma.size = 512;
  dma.end = ObservedMessage::End::refused;
  disk1.message(dma);
  ObservedMessage posted = message(Command::region_write, 40'000, 40'000);
  posted.end = ObservedMessage::End::posted;
  disk1.message(posted);
  const auto messages = events_of(written(trace, Started().marks), "X");
  REQUIRE(messages.size() == 3);
  CHECK(messages[0]["name"] == "REGION_WRITE");
  CHECK(messages[0]["pid"] == 3);
  CHECK(messages[0]["tid"] == 1);
  CHECK(messages[0]["ts"] == 7.0);
  CHECK(messages[0]["dur"] == 12.25);
  const auto& args = messages[0]["args"];
  CHECK(args["id"] == 9);
  CHECK(args["from"] == "client");
  CHECK(args["result"] == "answered");
  CHECK(args["posted"] == false);
  CHECK(args["region"] == 0);
  CHECK(args["offset"] == "0x1000");
  CHECK(args["size"] == 4);
  CHECK(args["bytes_out"] == 36);
  CHECK(args["bytes_in"] == 32);
  CHECK(messages[1]["name"] == "DMA_READ");
  CHECK(messages[1]["args"]["from"] == "server");
  CHECK(messages[1]["args"]["result"] == "refused");
  CHECK(messages[1]["args"]["address"] == "0x123456789000");
  CHECK(messages[2]["args"]["posted"] == true);
  CHECK(messages[2]["dur"] == 0.0);
}

TEST_CASE("trace: messages in flight together are on tracks of their own: no overlap on any") {
  Trace trace;
  auto& disk = trace.add_device("disk0");
  // Sent one after the other, answered one after the other, 12 at a time; then one alone.
  for (std::uint64_t i = 0; i < 12; ++i) {
    disk.message(message(Command::device_get_region_info, 1'000 + i, 9'000 + i));
  }
  disk.message(message(Command::region_read, 20'000, 21'000));
  const auto json = written(trace, Started().marks);
  std::map<int, double> over;
  std::size_t seen = 0;
  for (const auto& event : events_of(json, "X")) {
    const int track = event["tid"];
    const double begins = event["ts"];
    CHECK(begins >= over[track]);
    over[track] = begins + event["dur"].get<double>();
    ++seen;
  }
  CHECK(seen == 13);
  CHECK(over.size() == 12);
  CHECK(over[1] == 21.0);  // alone again: on the first track
  CHECK(names_of(json).at("2/12") == "messages in flight beside (11)");
}

TEST_CASE("trace: the marks are instant events, the device's on its own process") {
  Trace trace;
  (void)trace.add_device("disk0");
  Started run;
  Marks& marks = run.marks;
  marks.stamp_at(Mark::first_run, kStart + 3'000'000);
  marks.add_device("disk0").stamp_at(devices::DeviceMark::described, kStart + 2'000'001);
  const auto instants = events_of(written(trace, marks), "i");
  REQUIRE(instants.size() == 3);
  CHECK(instants[0]["name"] == "process start");
  CHECK(instants[0]["ts"] == 0.0);
  CHECK(instants[1]["name"] == "described");
  CHECK(instants[1]["pid"] == 2);
  CHECK(instants[1]["ts"] == 2000.001);
  CHECK(instants[2]["name"] == "first KVM_RUN");
  CHECK(instants[2]["pid"] == 1);
  CHECK(instants[2]["args"]["key"] == "first_run");
}

TEST_CASE("trace: events without room are counted in the file") {
  Trace trace(10, 5);
  auto& disk = trace.add_device("disk0");
  for (int i = 0; i < 12; ++i) trace.exit({.began = kStart, .ended = kStart});
  for (int i = 0; i < 6; ++i) disk.message(message(Command::region_read, 0, 0));
  const auto json = written(trace, Started().marks);
  CHECK(json["otherData"]["dropped_events"] == 3);
  CHECK(json["otherData"]["start_monotonic_ns"] == kStart);
  CHECK(events_of(json, "X").size() == 15);
}
