#pragma once

// What the sub-commands share on the command line.

#include <memory>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace outboard::bench {

struct BenchOptions {
  std::string config;  // boot-to-io: outboard's TOML
  std::string kernel, append, memory;
  std::vector<std::string> disks;
  int devices = 1;
  int runs = 50;
  int pairs = 20;
  std::vector<std::string> rivals;    // --vs
  std::vector<std::string> machines;  // QEMU's
  std::string qemu, outboard, outboard_nvme;
  std::string doorbells;
  std::string console_line = "VFS: Mounted root";
  std::string clock = "auto";
  bool unpack_each = false;  // outboard unpacks a bzImage in every run
  bool unpack = false;       // boot-to-io: every VMM gets the kernel unpacked
  bool whole = false;        // boot-to-io: to the guest's power-off, not only to the first read
  bool drop_caches = false;
  int limit = 60;    // seconds, a run
  int patience = 0;  // repetitions of another VMM's run that was not done in time
  std::string json, html;
};

// Adds the options that every measurement of whole runs has.
void add_run_options(CLI::App& app, BenchOptions& options);

}  // namespace outboard::bench
