#include "tools/bench/interrupt.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace outboard::bench {

Interrupt::Interrupt() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  fd_.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

int Interrupt::signal() {
  // The first one is remembered and its descriptor never read again when it is.
  if (signal_ != 0) return signal_;
  sigset_t pending;
  sigemptyset(&pending);
  ::sigpending(&pending);
  for (const int candidate : {SIGINT, SIGTERM, SIGHUP}) {
    if (sigismember(&pending, candidate) == 1) signal_ = candidate;
  }
  return signal_;
}

tl::unexpected<Error> Interrupt::error() {
  return tl::unexpected(Error{ExitStatus::failed, "interrupted", signal()});
}

}  // namespace outboard::bench
