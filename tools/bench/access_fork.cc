#include "tools/bench/access_fork.h"

#include <cerrno>

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace outboard::bench {

bool bind_to(std::optional<int> cpu) {
  if (!cpu) return true;
  if (*cpu < 0 || *cpu >= CPU_SETSIZE) return false;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(*cpu), &set);
  return ::sched_setaffinity(0, sizeof set, &set) == 0;
}

pid_t fork_process(const std::function<void()>& work) {
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child != 0) return child;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // Signals to the whole group, Ctrl-C for one, are for its owner, who ends it in order.
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::signal(number, SIG_IGN);
  if (::getppid() == parent) work();
  ::_exit(0);
}

void end_process(pid_t process) {
  if (process <= 0) return;
  ::kill(process, SIGKILL);
  while (::waitpid(process, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace outboard::bench
