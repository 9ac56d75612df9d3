#pragma once

// An allow-list of system calls as a seccomp filter. Compiled once a kind of thread, by libseccomp,
// and then installed by every thread of that kind.

#include <cstddef>
#include <string>
#include <vector>

#include <linux/filter.h>
#include <tl/expected.hpp>

#include "vmm/box/call_rule.h"

namespace outboard::box {

class Filter final {
 public:
  // Every call that no rule allows raises SIGSYS in its thread (see breach.h); one of another
  // architecture's table ends the process. `first` is the call to be judged first. Errors: one line
  // (a name that libseccomp does not know, no memory).
  [[nodiscard]] static tl::expected<Filter, std::string> compile(const CallRules& rules,
                                                                 const char* first = "ioctl");

  // How many different system calls are allowed.
  [[nodiscard]] std::size_t calls() const { return calls_; }

  // For the calling thread and those that it starts from now on; never taken off again. The thread
  // has no_new_privs. 0 or an errno. Any thread.
  [[nodiscard]] int install() const;

 private:
  Filter() = default;

  std::vector<sock_filter> program_;
  std::size_t calls_ = 0;
};

// Whether this kernel has seccomp filters with all that they need here. 0 or an errno.
[[nodiscard]] int filters_missing();

}  // namespace outboard::box
