#include "devices/guest_log.h"

#include <utility>

namespace outboard::devices {

GuestLog::GuestLog(std::string name, LogSink sink)
    : name_(std::move(name)), sink_(std::move(sink)) {}

bool GuestLog::line(Severity severity, const std::string& text) {
  std::string message = name_ + ": " + text;
  {
    std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (in_window_ == 0 || now - window_start_ >= kInterval) {
      window_start_ = now;
      in_window_ = 0;
    }
    if (in_window_ == kBurst) {
      ++suppressed_;
      return false;
    }
    ++in_window_;
    if (suppressed_ != reported_) {
      message +=
          " (" + std::to_string(suppressed_ - reported_) + " lines left out before this one)";
      reported_ = suppressed_;
    }
  }
  if (sink_) sink_(severity, std::move(message));
  return true;
}

void GuestLog::end(Severity severity, const std::string& text) const {
  if (sink_) sink_(severity, name_ + ": " + text);
}

std::uint64_t GuestLog::suppressed() const {
  std::lock_guard lock(mutex_);
  return suppressed_;
}

}  // namespace outboard::devices
