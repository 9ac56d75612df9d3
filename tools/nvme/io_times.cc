#include "tools/nvme/io_times.h"

#include <utility>

#include <time.h>

namespace outboard::nvme {
namespace {

u64 now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<u64>(time.tv_sec) * 1'000'000'000u + static_cast<u64>(time.tv_nsec);
}

}  // namespace

void IoClock::stamp(u64& time) {
  if (time == 0) time = now();
}

void IoClock::connected() {
  times_ = {};
  times_.connected = now();
}

void IoClock::enabled() {
  const u64 connected = times_.connected;
  times_ = {};
  times_.connected = connected;
  times_.enabled = now();
}

void IoClock::read(bool interrupt) {
  if (times_.read != 0) return;
  times_.read = now();
  times_.interrupt = interrupt;
  news_ = true;
}

bool IoClock::take_news() {
  return std::exchange(news_, false);
}

std::string io_times_json(const IoTimes& times) {
  const auto field = [](const char* name, u64 value) {
    return std::string("\"") + name + "\": " + std::to_string(value) + ", ";
  };
  return "{" + field("connected_ns", times.connected) + field("enabled_ns", times.enabled) +
         field("doorbell_ns", times.doorbell) + field("fetched_ns", times.fetched) +
         field("read_ns", times.read) + "\"interrupt\": " + (times.interrupt ? "true" : "false") +
         "}";
}

}  // namespace outboard::nvme
