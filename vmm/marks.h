#pragma once

// Time stamps of one run, from process start to power-off (CLOCK_MONOTONIC, nanoseconds). Each mark
// keeps its first stamp. Owned by the program; stamped by any thread.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "devices/device_marks.h"
#include "devices/first_times.h"

namespace outboard::vmm {

enum class Mark : std::size_t {
  process_start,       // the parent's stamp (OUTBOARD_STARTED_AT), else the first constructor
  program_loaded,      // the first constructor: exec and dynamic linking are done
  configuration_read,  // the TOML file and its overrides are resolved
  kvm_ready,           // VM and vCPUs exist
  memory_ready,        // guest memory is mapped and known to KVM, and faulted in if so configured
  kernel_loaded,       // kernel, initrd and boot data are in guest memory
  devices_attached,    // the last device is described and its DMA windows are mapped
  first_run,           // the first KVM_RUN
  first_exit,          // the first exit to user space
  first_console_byte,  // the first byte the guest wrote to its console
  guest_user_space,    // the guest's init wrote to the boot mark port
  power_off,           // the guest asked for power-off
  count,
};

// For people ("first KVM_RUN") and, stable, for programs ("first_run").
[[nodiscard]] std::string_view mark_name(Mark mark);
[[nodiscard]] std::string_view mark_name(devices::DeviceMark mark);
[[nodiscard]] std::string_view mark_key(Mark mark);
[[nodiscard]] std::string_view mark_key(devices::DeviceMark mark);

// One mark that has its time.
struct Stamp {
  std::string device;  // empty: the machine's own
  std::string_view key;
  std::string_view name;
  std::uint64_t at = 0;  // nanoseconds, CLOCK_MONOTONIC
};

class Marks {
 public:
  // Stamps `mark` with the time now, unless it is stamped already. Any thread; no lock.
  void stamp(Mark mark) { times_.stamp(mark); }

  // Stamps `mark` with a CLOCK_MONOTONIC time of the caller's.
  void stamp_at(Mark mark, std::uint64_t nanoseconds) { times_.stamp_at(mark, nanoseconds); }

  [[nodiscard]] std::optional<std::uint64_t> at(Mark mark) const { return times_.at(mark); }

  // The marks of one more device; the reference stays good. Main thread, before other threads know
  // the object.
  devices::DeviceMarks& add_device(std::string name);
  // In the order of add_device().
  [[nodiscard]] const devices::DeviceMarks& device(std::size_t index) const {
    return devices_[index].marks;
  }

  // All that have their time, earliest first.
  [[nodiscard]] std::vector<Stamp> list() const;

  // One line a stamped mark: milliseconds since process start, and the name.
  [[nodiscard]] std::string report() const;

  [[nodiscard]] static std::uint64_t now() { return devices::monotonic_now(); }

 private:
  struct Device {
    std::string name;
    devices::DeviceMarks marks;
  };

  devices::FirstTimes<Mark> times_;
  std::deque<Device> devices_;  // grows only in add_device()
};

// What OUTBOARD_STARTED_AT says: nanoseconds of CLOCK_MONOTONIC, not after `now` and at most an
// hour before it. Anything else is no time.
[[nodiscard]] std::optional<std::uint64_t> parent_stamp(const char* text, std::uint64_t now);

}  // namespace outboard::vmm
