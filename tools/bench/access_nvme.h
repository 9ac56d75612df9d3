#pragma once

// Measures 4 KiB reads of NVMe controllers in other processes, from the bench's guest. Main thread;
// forks.

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tools/bench/access_fork.h"
#include "tools/bench/access_rows.h"
#include "vfio_user/result.h"

namespace outboard::bench {

// A server to measure. They are measured one after the other, never at the same time.
struct NvmeContender {
  std::string key;      // "page"
  std::string name;     // "outboard-nvme --doorbells page"
  bool shadow = false;  // the guest uses a doorbell buffer
  bool ours = false;    // measured for idle CPU time too
  // One of the two: a program to start and to stop again ("{socket}" is replaced), or a socket at
  // which somebody else's server listens all the time.
  std::vector<std::string> server;
  std::string socket;
};

struct NvmeSettings {
  std::string outboard;
  Placement placement;
  std::vector<NvmeContender> contenders;
  std::uint32_t repetitions = 5;  // of all contenders, each time in the opposite order
  std::uint32_t blocks = 5;       // of a repetition: reads one by one, reads in flight, floors
  std::uint32_t reads = 400;      // one by one, in a block
  std::uint32_t batches = 4;      // in flight, in a block,
  std::uint32_t batch = 1024;     // of so many reads
  std::chrono::milliseconds idle{2000};  // 0: idle CPU time is not measured
  std::function<bool(const std::string&, double)> progress = [](const std::string&, double) {
    return true;
  };
};

// Adds rows for each contender; if there are contenders that are not ours, also each of ours in
// pairs with each of them.
vfio_user::Result<void> measure_nvme(const NvmeSettings& settings, AccessFigures& figures);

}  // namespace outboard::bench
