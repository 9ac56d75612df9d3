// When the guest's driver first did what a measurement of its boot wants to know, once for each
// enabling of the controller: firmware with a driver of its own enables it before the kernel does.
// Owned by the controller; one thread.
#pragma once

#include <string>

#include "tools/nvme/spec.h"

namespace outboard::nvme {

// Nanoseconds of CLOCK_MONOTONIC; 0: not yet.
struct IoTimes {
  u64 connected = 0;       // the client's connection was taken
  u64 enabled = 0;         // CC.EN 0 to 1; CSTS.RDY follows at once
  u64 doorbell = 0;        // first new tail of an I/O submission queue seen
  u64 fetched = 0;         // first command of an I/O queue taken
  u64 read = 0;            // first successful read: its completion is in guest memory
  bool interrupt = false;  // that read's queue interrupts, as a kernel's does and firmware's not
};

class IoClock {
 public:
  void connected();
  void enabled();
  void doorbell() { stamp(times_.doorbell); }
  void fetched() { stamp(times_.fetched); }
  void read(bool interrupt);

  const IoTimes& times() const { return times_; }
  // Since the last call a first read was completed. The caller reports it outside the data path.
  bool take_news();

 private:
  static void stamp(u64& time);

  IoTimes times_;
  bool news_ = false;
};

// {"connected_ns": …, "enabled_ns": …, "doorbell_ns": …, "fetched_ns": …, "read_ns": …,
// "interrupt": true}
std::string io_times_json(const IoTimes& times);

}  // namespace outboard::nvme
