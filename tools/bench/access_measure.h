#pragma once

// Measures the accesses to a register, a bell and a page of a device. Main thread; forks.

#include <cstdint>
#include <functional>
#include <string>

#include "tools/bench/access_fork.h"
#include "tools/bench/access_rows.h"
#include "vfio_user/result.h"

namespace outboard::bench {

struct AccessSettings {
  std::string outboard;  // the program
  Placement placement;
  std::uint32_t rounds = 50;    // each with a batch of every access and of every floor
  std::uint32_t samples = 20;   // of a batch
  std::uint32_t gap_us = 150;   // after a write or a bell, for the other side to fall asleep again
  std::uint32_t counted = 500;  // operations of the runs that count exits and messages
  // Called now and then with what is going on and how much of it is done, 0 to 1; false ends it.
  std::function<bool(const std::string&, double)> progress = [](const std::string&, double) {
    return true;
  };
};

// Adds its rows and floors.
vfio_user::Result<void> measure_accesses(const AccessSettings& settings, AccessFigures& figures);

}  // namespace outboard::bench
