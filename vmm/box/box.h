#pragma once

// The sandbox of one process: each kind of thread has its own allow-list of system calls (seccomp),
// its own files (Landlock) and capabilities. A thread goes in by itself, once it has what it needs,
// and never comes out; what it starts from then on is inside with it.
//
// Made on the main thread, before the threads that enter it; outlives them.

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <tl/expected.hpp>

#include "vmm/box/call_rule.h"
#include "vmm/box/filter.h"
#include "vmm/box/landlock.h"

namespace outboard::box {

struct ThreadKind {
  std::string name;                          // for people: "vCPU"
  CallRules calls = {};                      // besides those of sanitizers; empty: no such thread
  std::vector<WritableFolder> folders = {};  // all that is left of the file system
  std::uint64_t capabilities = 0;            // those that are kept: bits of 1 << CAP_…
};

// What became of it, for people and programs.
struct Report {
  struct Kind {
    std::string name;
    std::size_t calls = 0;  // allowed system calls
  };
  std::vector<Kind> kinds;
  int landlock = 0;       // version of the kernel's ABI; 0: none
  std::string sanitizer;  // whose calls are allowed as well; empty: none
};

// "main thread 60, vCPU 45 system calls; Landlock 7", and a sanitizer's name.
[[nodiscard]] std::string to_string(const Report& report);

class Box final {
 public:
  // Begins to compile the filters, on a thread of its own. Errors (one line): this kernel has no
  // seccomp filters.
  [[nodiscard]] static tl::expected<std::unique_ptr<Box>, std::string> create(
      std::vector<ThreadKind> kinds);

  Box(const Box&) = delete;
  Box& operator=(const Box&) = delete;
  ~Box();

  // The calling thread is one of that kind from here on; `name` is what it is called when it does
  // what it may not. What cannot be closed is never left open: the process ends with a line. Any
  // thread.
  void enter(std::size_t kind, std::string_view name);

  // 0: this kernel has none, and files are kept from threads by their system calls alone.
  [[nodiscard]] int landlock() const { return landlock_; }

  // Waits for the filters.
  [[nodiscard]] Report report();

 private:
  struct Made {
    std::optional<Filter> filter;
    std::optional<FileRules> files;  // none without Landlock
    std::string error;               // empty: it is whole
  };

  explicit Box(std::vector<ThreadKind> kinds);
  void make_all();
  Made make(const ThreadKind& kind) const;
  const Made& made(std::size_t kind);

  const std::vector<ThreadKind> kinds_;
  const int landlock_;
  std::mutex mutex_;  // a leaf
  std::condition_variable changed_;
  std::vector<Made> made_;  // under mutex_ until the thread has come there; then constant
  std::size_t ready_ = 0;   // under mutex_: how many of made_ are whole
  std::thread maker_;
};

}  // namespace outboard::box
