// Other people's programs, started for a test and ended with it.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace outboard::peers {

// A folder of the test's own, removed with all that is in it. Its name is short: a socket path has
// 107 bytes.
class Folder final {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A program that runs until it ends by itself or this object does: SIGTERM, and SIGKILL if it is
// still there a while later. Its output goes to `log`; its standard input stays open and silent.
class Process final {
 public:
  Process(const std::vector<std::string>& command, const std::string& log,
          const std::vector<std::string>& environment = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Its wait status, if it has ended within that time.
  std::optional<int> wait(std::chrono::milliseconds patience);
  [[nodiscard]] bool running();
  // SIGKILL, to it and to what it has started; on return it is gone.
  void kill();
  [[nodiscard]] std::string output() const;

 private:
  std::string log_;
  pid_t pid_ = -1;
  int input_ = -1;  // the writing end
  std::optional<int> status_;
};

// Waits until there is a socket at `path`, `server` has ended, or 30 s are over; true for a socket.
bool wait_for_socket(Process& server, const std::string& path);

// Runs a program to its end (60 s at most); its output, and its exit status, -1 for a signal.
struct Outcome {
  int status = -1;
  std::string output;
};
Outcome run(const std::vector<std::string>& command, const Folder& folder);

// Whether /dev/kvm, of any kind, opens here.
bool has_kvm();

// The value of an environment variable, or nothing when it is not set or empty.
const char* peer(const char* variable);

}  // namespace outboard::peers
