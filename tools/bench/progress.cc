#include "tools/bench/progress.h"

#include <cstdio>
#include <utility>

#include <fmt/core.h>
#include <unistd.h>

#include "tools/bench/clock.h"

namespace outboard::bench {
namespace {

constexpr std::uint64_t kQuietPause = 10'000'000'000U;  // between lines of a log, nanoseconds

}  // namespace

Progress::Progress(std::string label, std::size_t total)
    : label_(std::move(label)),
      total_(total),
      terminal_(::isatty(STDERR_FILENO) == 1),
      started_(monotonic_now()),
      drawn_(started_) {
  if (terminal_) draw("");
}

Progress::~Progress() {
  if (terminal_) fmt::print(stderr, "\r\033[K");
}

void Progress::step(const std::string& note) {
  ++done_;
  const std::uint64_t now = monotonic_now();
  if (!terminal_ && now - drawn_ < kQuietPause) return;
  drawn_ = now;
  draw(note);
}

void Progress::draw(const std::string& note) {
  const double passed = static_cast<double>(monotonic_now() - started_) / 1e9;
  std::string left;
  if (done_ > 0 && done_ < total_) {
    left = fmt::format(", {:.0f} s left",
                       passed / static_cast<double>(done_) * static_cast<double>(total_ - done_));
  }
  fmt::print(stderr, "{}{} [{}] {}/{}{}{}{}{}", terminal_ ? "\r" : "", label_,
             progress_bar(done_, total_, 24), done_, total_, left, note.empty() ? "" : "  ", note,
             terminal_ ? "\033[K" : "\n");
  std::fflush(stderr);
}

std::string progress_bar(std::size_t done, std::size_t total, std::size_t width) {
  const std::size_t filled = total == 0 ? width : done * width / total;
  return std::string(filled, '#') + std::string(width - filled, '.');
}

}  // namespace outboard::bench
