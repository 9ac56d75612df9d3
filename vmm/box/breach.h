#pragma once

// A thread made a system call that its filter forbids: one line that names the thread and the call,
// and the end of the process.

#include <memory>
#include <string>
#include <string_view>

namespace outboard::box {

struct BreachPolicy {
  const char* program = "";  // begins the line; lives as long as the process
  int exit_status = 1;
  // Called on the thread itself before the line is written: puts the terminal back. Must be
  // async-signal-safe, and every kind of thread must be allowed what it calls. May be none.
  void (*restore)() = nullptr;
};

// Installs the handler of SIGSYS. The calling thread is the main thread: it may remove files, and
// does so for the others, if it can within a second. May be called again; the last policy counts.
void watch_for_breaches(const BreachPolicy& policy);

// What the line calls the calling thread: its kind ("vCPU") and its own name ("vcpu0").
void name_thread(std::string_view kind, std::string_view name);

// A file that must not outlive the process: a socket, a file that is not whole yet. While this
// object lives, a breach removes it. Of the main thread. At most 16 are remembered.
class RemovedOnBreach final {
 public:
  RemovedOnBreach() = default;
  explicit RemovedOnBreach(std::string_view path);
  ~RemovedOnBreach();
  RemovedOnBreach(RemovedOnBreach&& other) noexcept;
  RemovedOnBreach& operator=(RemovedOnBreach&& other) noexcept;

 private:
  std::unique_ptr<std::string> path_;  // none: nothing to remove
};

}  // namespace outboard::box
