// Log lines that a guest or a server can cause at will: a few at a time, the others counted.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

#include "devices/log_sink.h"

namespace outboard::devices {

// Any thread. At most kBurst lines in kInterval, and the ends of what they began; the first line
// after a quiet interval says how many were left out.
class GuestLog final {
 public:
  static constexpr std::uint32_t kBurst = 5;
  static constexpr std::chrono::seconds kInterval{10};

  GuestLog(std::string name, LogSink sink);

  // Whether it was written.
  bool line(Severity severity, const std::string& text);
  // The end of what a line that was written began: past the limit. At most one to each such line.
  void end(Severity severity, const std::string& text) const;
  std::uint64_t suppressed() const;

 private:
  const std::string name_;
  const LogSink sink_;
  mutable std::mutex mutex_;  // a leaf; released before the sink is called
  std::chrono::steady_clock::time_point window_start_{};
  std::uint32_t in_window_ = 0;
  std::uint64_t suppressed_ = 0;
  std::uint64_t reported_ = 0;  // of the suppressed, those a later line has told of
};

}  // namespace outboard::devices
