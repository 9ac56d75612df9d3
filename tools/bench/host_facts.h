#pragma once

// What a figure needs beside it to mean something: the machine it was taken on.

#include <string>

namespace outboard::bench {

struct HostFacts {
  std::string cpu_model;
  int cpus = 0;            // online
  std::string placement;   // CPUs this program and its children may use: "0-1"
  std::string kernel;      // "6.1.0-…"
  std::string page_size;   // of this host, and its transparent huge pages: "4 KiB, THP madvise"
  std::string kvm;         // "hardware", "software" or "none"
  double load = 0;         // one-minute average when the measurement began
  std::string hypervisor;  // the CPU says that it is a virtual one: "virtual machine", or empty
};

[[nodiscard]] HostFacts host_facts();

// One line: for the head of a table.
[[nodiscard]] std::string to_string(const HostFacts& facts);

}  // namespace outboard::bench
