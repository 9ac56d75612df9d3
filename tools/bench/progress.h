#pragma once

// A bar on standard error while runs go on: on a terminal in place, elsewhere a line now and then.

#include <cstddef>
#include <cstdint>
#include <string>

namespace outboard::bench {

class Progress {
 public:
  Progress(std::string label, std::size_t total);
  ~Progress();  // clears the bar
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // One more is done; `note` is shown beside the bar.
  void step(const std::string& note);

 private:
  void draw(const std::string& note);

  std::string label_;
  std::size_t total_;
  std::size_t done_ = 0;
  bool terminal_;
  std::uint64_t started_;
  std::uint64_t drawn_ = 0;
};

// "####......"
[[nodiscard]] std::string progress_bar(std::size_t done, std::size_t total, std::size_t width);

}  // namespace outboard::bench
