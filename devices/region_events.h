// The ioeventfds of one region: guest stores that reach the server inside the kernel, with no exit
// to user space and no message.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "devices/address.h"
#include "devices/bar_info.h"
#include "devices/guest_log.h"
#include "devices/ioevents.h"
#include "vfio_user/io_fd.h"

namespace outboard::devices {

// Any thread. Owns the descriptors; they are with the kernel while the BAR is decoded. Has a lock
// of its own, held only while the kernel is called, never while the server is asked.
class RegionEvents final {
 public:
  // kept_out: parts of the region that something in this process answers (MSI-X table and PBA).
  RegionEvents(const BarInfo& bar, std::vector<AddressWindow> kept_out, IoEvents& events,
               GuestLog& log);
  ~RegionEvents();  // takes everything back from the kernel
  RegionEvents(const RegionEvents&) = delete;
  RegionEvents& operator=(const RegionEvents&) = delete;

  // What the server offers from now on. Ranges of the wrong address space, beyond the BAR, kept
  // out, or refused by the kernel stay trapped, with a log line when they are new. What stays the
  // same is not touched, so that no store of another vCPU falls between two states.
  void offer(std::vector<vfio_user::IoFd> ranges);
  // Whether offer() would change nothing.
  bool holds(const std::vector<vfio_user::IoFd>& ranges) const;
  // Where the BAR answers from now on; nothing: nowhere.
  void move(std::optional<std::uint64_t> base);
  // Whether a store there lies in a range that is on offer: one that the kernel does not take
  // changes no more about the offer than one it takes.
  bool covers(std::uint64_t offset, std::uint64_t size) const;

 private:
  struct Range {
    vfio_user::IoFd io;
    bool attached = false;  // the kernel has it, at *base_ + io.offset
    bool refused = false;   // the kernel does not want it there
  };
  // Why the range stays trapped; empty if it does not.
  std::string fault_of(const vfio_user::IoFd& io) const;
  std::vector<Range>::const_iterator find(const vfio_user::IoFd& io) const;
  void attach(Range& range);
  void detach(Range& range);

  const BarInfo bar_;
  const std::vector<AddressWindow> kept_out_;
  const Space space_;
  IoEvents& events_;
  GuestLog& log_;
  mutable std::mutex mutex_;
  std::optional<std::uint64_t> base_;  // under mutex_, as ranges_
  std::vector<Range> ranges_;
  std::vector<std::string> told_;  // faults of the offer in force
};

}  // namespace outboard::devices
