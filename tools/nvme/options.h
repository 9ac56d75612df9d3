// The command line of outboard-nvme.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "tools/nvme/vfio_device.h"

namespace outboard::nvme {

struct NamespaceOptions {
  enum class Kind { file, memory, null };
  Kind kind = Kind::file;
  std::string path;  // of a file
  u64 size = 0;      // bytes, of memory and null
  u32 block_size = 512;
  bool read_only = false;
};

struct Options {
  std::string socket;
  std::vector<NamespaceOptions> namespaces;
  u16 queues = kMaxIoQueues;
  DoorbellMode doorbells = DoorbellMode::shadow;
  std::string serial;    // empty: derived from what is served
  bool threads = false;  // no io_uring
  bool stats = false;
  bool once = false;
  std::string state;  // file for what a successor needs; empty: none
  int ready_fd = -1;
  int first_read_fd = -1;
  bool sandbox = true;
};

// Exit statuses, documented in --help and the manual page.
inline constexpr int kExitDone = 0;
inline constexpr int kExitInternal = 1;  // while serving: the listening socket broke
inline constexpr int kExitUsage = 2;     // the command line
inline constexpr int kExitImage = 3;     // an image, or the memory for one
inline constexpr int kExitSocket = 4;    // the socket could not be made
inline constexpr int kExitFlush = 5;     // ended, but a last flush failed
inline constexpr int kExitState = 6;     // the state file is of something else, or in use
inline constexpr int kExitSandbox = 7;   // a thread made a system call that its sandbox forbids

// The options, or the status to exit with: help was asked for, or the line is wrong (which has
// then been said on stderr).
std::variant<Options, int> parse_options(int argc, char** argv);

}  // namespace outboard::nvme
