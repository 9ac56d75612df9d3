#pragma once

// Time stamps of one run, from process start to power-off (CLOCK_MONOTONIC, nanoseconds). Each mark
// keeps its first stamp. Owned by the program; stamped by any thread.

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace outboard::vmm {

enum class Mark : std::size_t {
  process_start,       // main() or earlier
  configuration_read,  // the TOML file and its overrides are resolved
  kvm_ready,           // VM and vCPUs exist
  memory_ready,        // guest memory is mapped and known to KVM
  kernel_loaded,       // kernel, initrd and boot data are in guest memory
  devices_attached,    // the last device is described and its DMA windows are mapped
  first_run,           // the first KVM_RUN
  first_exit,          // the first exit to user space
  first_console_byte,  // the first byte the guest wrote to its console
  guest_user_space,    // the guest's init wrote to the boot mark port
  power_off,           // the guest asked for power-off
  count,
};

[[nodiscard]] std::string_view mark_name(Mark mark);

class Marks {
 public:
  // Stamps `mark` with the time now, unless it is stamped already. Any thread; no lock.
  void stamp(Mark mark);

  // Stamps `mark` with a CLOCK_MONOTONIC time of the caller's.
  void stamp_at(Mark mark, std::uint64_t nanoseconds);

  [[nodiscard]] std::optional<std::uint64_t> at(Mark mark) const;

  // One line a stamped mark: milliseconds since process start, and the name.
  [[nodiscard]] std::string report() const;

  [[nodiscard]] static std::uint64_t now();

 private:
  // any thread, by compare-exchange; 0 is "not yet"
  std::array<std::atomic<std::uint64_t>, static_cast<std::size_t>(Mark::count)> stamps_{};
};

}  // namespace outboard::vmm
