#include "vmm/box/sanitizer_rules.h"

#include <sys/ioctl.h>
#include <sys/prctl.h>

#include "vmm/box/common_rules.h"

#ifdef __has_feature
#define OUTBOARD_HAS_FEATURE(feature) __has_feature(feature)
#else
#define OUTBOARD_HAS_FEATURE(feature) 0
#endif

namespace outboard::box {
namespace {

#if defined(__SANITIZE_ADDRESS__) || OUTBOARD_HAS_FEATURE(address_sanitizer)
constexpr const char* kName = "AddressSanitizer";
#elif defined(__SANITIZE_THREAD__) || OUTBOARD_HAS_FEATURE(thread_sanitizer)
constexpr const char* kName = "ThreadSanitizer";
#else
constexpr const char* kName = "";
#endif

}  // namespace

const char* sanitizer_name() {
  return kName;
}

CallRules sanitizer_checks() {
  if (kName[0] == '\0') return {};
  return {
      // Whether memory can be read is found out by writing it to a pipe.
      {"pipe"},
      {"pipe2"},
      // Whose stack a function is on that does not return.
      {"sigaltstack"},
  };
}

CallRules sanitizer_rules() {
  if (kName[0] == '\0') return {};
  return join({
      sanitizer_checks(),
      {
          // New threads: their stacks and limits, who runs where.
          {"getrlimit"},
          {"prlimit64"},
          {"sysinfo"},
          {"getuid"},
          {"geteuid"},
          {"getppid"},
          {"uname"},
          {"sched_setaffinity"},
          {"set_robust_list"},
          {"rseq"},
          // A report: what is mapped, and the symbols in it.
          {"open"},
          {"openat"},
          {"readlink"},
          {"readlinkat"},
          {"access"},
          {"stat"},
          {"newfstatat"},
          {"lseek"},
          {"pread64"},
          {"getdents"},
          {"getdents64"},
          {"getcwd"},
          // The search for leaks at the end: a task of its own that traces all threads.
          {"clone"},
          {"ptrace"},
          {"wait4"},
          {"kill"},
          {"process_vm_readv"},
          {"msync"},
          {"mincore"},
      },
      one_of("ioctl", 1, {TCGETS}),
      one_of("prctl", 0, {PR_GET_DUMPABLE, PR_SET_DUMPABLE, PR_SET_PTRACER, PR_SET_PDEATHSIG}),
  });
}

}  // namespace outboard::box
