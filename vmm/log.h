#pragma once

// The log of a machine: one line an event on standard error. spdlog stands behind it, in log.cc
// only. Any function may be called from any thread.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string_view>

#include <fmt/core.h>

namespace outboard::vmm::log {

enum class Level { trace, debug, info, warning, error, off };

// Sets the lowest level that is printed. The default is `info`.
void set_level(Level level);

// True when a line of `level` would be printed; lets callers skip costly arguments.
[[nodiscard]] bool enabled(Level level);

void write(Level level, std::string_view line);

// While the console is a raw terminal, a line feed alone does not return the carriage.
void set_raw_terminal(bool raw);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::debug)) write(Level::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::info)) write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::warning))
    write(Level::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::error)) write(Level::error, fmt::format(format, std::forward<Args>(args)...));
}

// A limit on lines that a guest or a server can trigger: `burst` lines at once, then one a second.
// What is dropped is counted and said with the next line that passes. Any thread.
class RateLimit {
 public:
  explicit RateLimit(std::uint32_t burst = 10) : tokens_(burst), burst_(burst) {}

  // The number of lines dropped since the last one that passed, or -1 when this one must not pass.
  [[nodiscard]] std::int64_t admit();

  // All lines ever dropped.
  [[nodiscard]] std::uint64_t dropped() const { return total_dropped_.load(); }

 private:
  std::atomic<std::int64_t> last_second_{0};     // any thread; steady clock, seconds
  std::atomic<std::uint32_t> tokens_;            // any thread
  std::atomic<std::uint32_t> dropped_{0};        // any thread; since the last line that passed
  std::atomic<std::uint64_t> total_dropped_{0};  // any thread
  std::uint32_t burst_;
};

// `write` under a limit; appends "(N similar lines dropped)" where some were.
void write_limited(RateLimit& limit, Level level, std::string_view line);

}  // namespace outboard::vmm::log
