#pragma once

// Exit statuses of `outboard`, as documented in README.md and outboard(1). Scripts depend on the
// numbers: they never change meaning.

#include <string_view>

namespace outboard::vmm {

enum class ExitStatus : int {
  powered_off = 0,     // the guest powered itself off (or rebooted with on_reboot = "exit")
  internal_error = 1,  // a defect of outboard, or the host refused something it never should
  usage = 2,           // the command line is wrong
  configuration = 3,   // the TOML file is missing or wrong
  boot_image = 4,      // kernel or initrd missing, truncated, foreign or too large
  no_kvm = 5,          // /dev/kvm is absent, forbidden or lacks a capability
  memory = 6,          // guest memory cannot be had
  device_attach = 7,   // a device's server or socket could not be attached
  device_lost = 8,     // a device was lost while running, with on_disconnect = "stop", or its
                       // server signalled what on_error or on_request = "stop" ends the machine for
  triple_fault = 9,    // the guest shut its CPU down by a triple fault
  vcpu_failure = 10,   // KVM internal error or an exit nobody handles; registers were printed
  deadline = 11,       // the guest did not power off in time and was stopped
  sandbox = 12,        // a thread made a system call that its sandbox forbids
  signal_base = 128,   // + n: ended at once by signal n
};

constexpr int to_int(ExitStatus status) {
  return static_cast<int>(status);
}

}  // namespace outboard::vmm
