// outboard as a process of its own: a machine with one device, its console on a socket, its report.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include <nlohmann/json.hpp>
#include <sys/types.h>

#include "vfio_user/unique_fd.h"

namespace outboard::chaos {

// What a process has; read from /proc.
struct Footprint {
  std::size_t fds = 0;
  std::size_t threads = 0;
  std::size_t mappings = 0;
  std::size_t kib = 0;  // resident memory that is its own: RssAnon
};
Footprint footprint_of(pid_t process);

// One thread. Ends the process when it goes.
class Program final {
 public:
  // `outboard run` of the configuration; in `folder` are its log, its report, and `console`, the
  // socket that the configuration names.
  Program(const std::string& config, std::string folder);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // Connects to the console; false: the program has ended.
  bool connect_console();
  // Waits until the guest has said a line with `text` that was not waited for before.
  bool wait_for(const std::string& text, std::chrono::milliseconds patience);
  // What comes before it has been quiet for so long is not waited for.
  void skip_output(std::chrono::milliseconds quiet);
  void type(const std::string& bytes);
  // Its exit status, 128 + n for a signal; reads the console until then.
  int wait();

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] const std::string& console() const { return text_; }
  [[nodiscard]] std::string log() const;
  [[nodiscard]] nlohmann::json report() const;

 private:
  bool read_some(int milliseconds);

  const std::string folder_;
  pid_t pid_ = -1;
  vfio_user::UniqueFd console_;
  std::string text_;
  std::size_t seen_ = 0;  // of text_, waited for or skipped
};

}  // namespace outboard::chaos
