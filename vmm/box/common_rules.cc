#include "vmm/box/common_rules.h"

#include <cerrno>

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

namespace outboard::box {

CallRules join(std::initializer_list<CallRules> groups) {
  CallRules all;
  for (const CallRules& group : groups) all.insert(all.end(), group.begin(), group.end());
  return all;
}

CallRules one_of(const char* call, unsigned argument, std::initializer_list<std::uint32_t> values) {
  CallRules rules;
  for (const std::uint32_t value : values) rules.push_back({call, {equals(argument, value)}});
  return rules;
}

CallRules every_thread() {
  return join({
      {
          {"futex"},
          {"sched_yield"},
          {"sched_getaffinity"},  // how many processors there are
          {"getpid"},
          {"gettid"},
          // Of the allocator: a random number, and glibc's question, once, of the overcommit
          // setting before it gives memory back, which may stay without an answer.
          {"getrandom"},
          {"openat", {equals(2, O_RDONLY | O_CLOEXEC)}, EACCES},
          // Clocks, where the vDSO hands them on.
          {"clock_gettime"},
          {"clock_getres"},
          {"gettimeofday"},
          {"time"},
          {"clock_nanosleep"},
          {"nanosleep"},
          // Memory.
          {"mmap", {without(2, PROT_EXEC)}},
          {"mprotect", {without(2, PROT_EXEC)}},
          {"munmap"},
          {"mremap"},
          {"madvise"},
          {"brk"},
          // Signals: kicks between threads, handlers that step aside for the one before them.
          {"rt_sigreturn"},
          {"rt_sigprocmask"},
          {"rt_sigaction"},
          {"tgkill"},
          // What is open.
          {"read"},
          {"write"},
          {"writev"},
          {"close"},
          {"fstat"},
          {"newfstatat", {with(3, AT_EMPTY_PATH)}},
          {"poll"},
          {"ppoll"},
          // The end.
          {"restart_syscall"},
          {"exit"},
          {"exit_group"},
      },
      one_of("fcntl", 1,
             {F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, static_cast<int>(F_GET_SEALS)}),
      one_of("prctl", 0, {PR_SET_NAME, PR_GET_NAME}),
  });
}

CallRules start_threads() {
  constexpr std::uint64_t kThread =
      CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
  return {
      // The flags of clone3 are in memory, where a filter cannot see them: the C library goes on
      // with clone.
      {"clone3", {}, ENOSYS},
      {"clone", {with(0, kThread)}},
      {"set_robust_list"},
      {"rseq"},
      {"capget"},
      {"capset"},
      {"prctl", {equals(0, PR_SET_NO_NEW_PRIVS)}},
      {"landlock_restrict_self"},
      {"seccomp", {equals(0, SECCOMP_SET_MODE_FILTER), equals(1, 0)}},
  };
}

CallRules wait_for_events() {
  return {{"epoll_wait"}, {"epoll_pwait"}, {"epoll_ctl"}, {"timerfd_settime"}};
}

CallRules make_event_sources() {
  return {{"eventfd2"}, {"epoll_create1"}, {"timerfd_create"}};
}

CallRules talk() {
  return {
      {"sendmsg"},     {"recvmsg"},     {"sendto"},
      {"recvfrom"},    {"shutdown"},    {"getsockopt"},
      {"getpeername"}, {"getsockname"}, {"setsockopt", {equals(1, SOL_SOCKET)}},
  };
}

CallRules connect_sockets() {
  return {
      {"socket", {equals(0, AF_UNIX)}},
      {"socketpair", {equals(0, AF_UNIX)}},
      {"connect"},
      {"newfstatat"},  // what is in the way, for the error
      {"unshare", {equals(0, CLONE_FS)}},
      {"openat", {equals(2, O_PATH | O_CLOEXEC)}},  // to come back to; nothing can be read there
      {"open", {equals(1, O_PATH | O_CLOEXEC)}},
      {"fchdir"},
      {"geteuid"},  // whose the server should be
  };
}

}  // namespace outboard::box
