#pragma once

// What every VMM of a measurement is given alike: kernel, command line, memory, disks.

#include <cstdint>
#include <string>
#include <vector>

namespace outboard::bench {

struct Workload {
  std::string kernel;
  std::string vmlinux;        // the same kernel unpacked, if `kernel` is packed
  bool keep_unpacked = true;  // outboard keeps what it unpacked for its next run
  std::string initrd;
  std::string command_line;
  std::uint64_t memory = 512U << 20;  // bytes
  int vcpus = 1;
  // For each disk the command of its server, without the socket.
  std::vector<std::vector<std::string>> disks;
  // The raw image behind each, or empty: for a VMM that cannot be given a vfio-user device.
  std::vector<std::string> images;
};

}  // namespace outboard::bench
