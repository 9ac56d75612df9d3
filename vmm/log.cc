#include "vmm/log.h"

#include <memory>
#include <string>

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace outboard::vmm::log {
namespace {

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::trace:
      return spdlog::level::trace;
    case Level::debug:
      return spdlog::level::debug;
    case Level::info:
      return spdlog::level::info;
    case Level::warning:
      return spdlog::level::warn;
    case Level::error:
      return spdlog::level::err;
    case Level::off:
      return spdlog::level::off;
  }
  return spdlog::level::info;
}

constexpr const char* kPattern = "[%H:%M:%S.%e] outboard: %^%l%$: %v";
constexpr const char* kRawPattern = "[%H:%M:%S.%e] outboard: %^%l%$: %v\r";

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = std::make_shared<spdlog::logger>(
        "outboard", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern(kPattern);
    made->set_level(spdlog::level::info);
    made->flush_on(spdlog::level::trace);
    return made;
  }();
  return *instance;
}

}  // namespace

void set_level(Level level) {
  logger().set_level(to_spdlog(level));
}

bool enabled(Level level) {
  return logger().should_log(to_spdlog(level));
}

void write(Level level, std::string_view line) {
  logger().log(to_spdlog(level), spdlog::string_view_t(line.data(), line.size()));
}

void set_raw_terminal(bool raw) {
  logger().set_pattern(raw ? kRawPattern : kPattern);
}

std::int64_t RateLimit::admit() {
  const auto second = std::chrono::duration_cast<std::chrono::seconds>(
                          std::chrono::steady_clock::now().time_since_epoch())
                          .count();
  std::int64_t last = last_second_.load(std::memory_order_relaxed);
  if (second > last && last_second_.compare_exchange_strong(last, second)) {
    // Whoever moves the clock on refills: one token a second that went by, `burst` at most.
    const auto gained = static_cast<std::uint64_t>(last == 0 ? 0 : second - last);
    std::uint32_t have = tokens_.load();
    while (!tokens_.compare_exchange_weak(
        have, static_cast<std::uint32_t>(std::min<std::uint64_t>(burst_, have + gained)))) {
    }
  }
  std::uint32_t have = tokens_.load();
  while (have > 0) {
    if (tokens_.compare_exchange_weak(have, have - 1)) return dropped_.exchange(0);
  }
  dropped_.fetch_add(1);
  total_dropped_.fetch_add(1);
  return -1;
}

void write_limited(RateLimit& limit, Level level, std::string_view line) {
  if (!enabled(level)) return;
  const std::int64_t dropped = limit.admit();
  if (dropped < 0) return;
  if (dropped == 0) return write(level, line);
  write(level, fmt::format("{} ({} similar lines dropped)", line, dropped));
}

}  // namespace outboard::vmm::log
