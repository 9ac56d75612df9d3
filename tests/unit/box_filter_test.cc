// What a filter lets through, and what becomes of a thread that asks for more (issue 5, item 7).
#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string>
#include <thread>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "tests/unit/boxed_child.h"
#include "vmm/box/box.h"
#include "vmm/box/sanitizer_rules.h"
#include "vmm/box/syscall_names.h"

using namespace outboard::box;
using namespace outboard::box::test;

namespace {

// Ends the child with a status of its own when a call that is allowed does not do what it should.
void must(bool truth, int status) {
  if (!truth) ::_exit(status);
}

std::string new_file() {
  std::string path = "/tmp/outboard-box.XXXXXX";
  const int fd = ::mkstemp(path.data());
  REQUIRE(fd >= 0);
  ::close(fd);
  return path;
}

}  // namespace

TEST_CASE("a forbidden call ends the process with the given status and a line that names it") {
  const struct {
    const char* name;
    long number;
    std::array<long, 4> arguments;
  } forbidden[] = {
      {"execve", SYS_execve, {0, 0, 0, 0}},
      {"openat", SYS_openat, {AT_FDCWD, reinterpret_cast<long>("/"), O_RDONLY, 0}},
      {"socket", SYS_socket, {AF_INET, SOCK_STREAM, 0, 0}},
      {"ioctl", SYS_ioctl, {0, 0x5412 /* TIOCSTI */, 0, 0}},
      {"ptrace", SYS_ptrace, {0, 0, 0, 0}},
      {"kill", SYS_kill, {1, 0, 0, 0}},
      {"clone", SYS_clone, {SIGCHLD, 0, 0, 0}},
      {"setuid", SYS_setuid, {0, 0, 0, 0}},
      {"mount", SYS_mount, {0, 0, 0, 0}},
      {"unshare", SYS_unshare, {0, 0, 0, 0}},
      {"bpf", SYS_bpf, {0, 0, 0, 0}},
      {"io_uring_setup", SYS_io_uring_setup, {1, 0, 0, 0}},
  };
  for (const auto& call : forbidden) {
    CAPTURE(call.name);
    const auto& [a, b, c, d] = call.arguments;
    const Outcome outcome = behind(every_thread(), [&] { ::syscall(call.number, a, b, c, d); });
    CHECK(outcome.status == kBreach);
    CHECK_MESSAGE(names(outcome, call.name), outcome.error);
    CHECK(outcome.error.find("status 42") != std::string::npos);
    CHECK(std::count(outcome.error.begin(), outcome.error.end(), '\n') == 1);
  }
}

TEST_CASE("a system call that the headers did not know is named by its number") {
  CHECK(syscall_name(SYS_futex) == std::string("futex"));
  CHECK(syscall_name(4000) == nullptr);
  const Outcome outcome = behind(every_thread(), [] { ::syscall(4000); });
  CHECK(outcome.status == kBreach);
  CHECK_MESSAGE(outcome.error.find("number 4000") != std::string::npos, outcome.error);
}

TEST_CASE("memory can be had, and none of it made executable") {
  CHECK(behind(every_thread(), [] {
          void* const page =
              ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
          must(page != MAP_FAILED, 1);
          must(::mprotect(page, 4096, PROT_READ) == 0, 2);
          must(::munmap(page, 4096) == 0, 3);
        }).status == 0);
  const Outcome mapped = behind(every_thread(), [] {
    ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  });
  CHECK(mapped.status == kBreach);
  CHECK_MESSAGE(names(mapped, "mmap"), mapped.error);
  const Outcome changed = behind(every_thread(), [] {
    void* const page =
        ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ::mprotect(page, 4096, PROT_READ | PROT_EXEC);
  });
  CHECK(changed.status == kBreach);
  CHECK_MESSAGE(names(changed, "mprotect"), changed.error);
}

TEST_CASE("sockets are Unix sockets, and only for those who may connect") {
  const CallRules rules = join({every_thread(), connect_sockets(), talk()});
  CHECK(behind(rules, [] {
          must(::socket(AF_UNIX, SOCK_STREAM, 0) >= 0, 1);
          int ends[2];
          must(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, 2);
        }).status == 0);
  for (const int family : {AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_VSOCK}) {
    CAPTURE(family);
    const Outcome outcome = behind(rules, [family] { ::socket(family, SOCK_STREAM, 0); });
    CHECK(outcome.status == kBreach);
    CHECK_MESSAGE(names(outcome, "socket"), outcome.error);
  }
  CHECK(names(behind(join({every_thread(), talk()}), [] { ::socket(AF_UNIX, SOCK_STREAM, 0); }),
              "socket"));
}

TEST_CASE("arguments of prctl and fcntl: only what is listed") {
  CHECK(behind(every_thread(), [] {
          must(::prctl(PR_SET_NAME, "boxed") == 0, 1);
          must(::fcntl(0, F_GETFL) >= 0, 2);
        }).status == 0);
  CHECK(names(behind(every_thread(), [] { ::prctl(PR_SET_DUMPABLE, 1); }), "prctl"));
  CHECK(names(behind(every_thread(), [] { ::fcntl(0, F_SETOWN, ::getpid()); }), "fcntl"));
}

TEST_CASE("a thread starts another thread, which is inside too, and never a process") {
  const CallRules rules = join({every_thread(), start_threads(), sanitizer_rules()});
  const Outcome outcome = behind(rules, [] {
    std::thread other([] {
      name_thread("tester", "child");
      ::syscall(SYS_setuid, 0);
    });
    other.join();
  });
  CHECK(outcome.status == kBreach);
  CHECK_MESSAGE(names(outcome, "setuid"), outcome.error);
  const CallRules plain = join({every_thread(), start_threads()});
  CHECK(names(behind(plain, [] { ::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }), "clone"));
  CHECK(behind(plain, [] {
          errno = 0;
          must(::syscall(SYS_clone3, nullptr, 0) == -1 && errno == ENOSYS, 1);
        }).status == 0);
}

TEST_CASE("a thread that blocks all signals says what it did all the same") {
  auto box = Box::create({{.name = "tester", .calls = every_thread()}});
  REQUIRE(box);
  REQUIRE((*box)->report().kinds.size() == 1);  // made before the child is: its maker stays here
  const Outcome outcome = in_child([&] {
    sigset_t all;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
    (*box)->enter(0, "child");
    ::syscall(SYS_setuid, 0);
  });
  CHECK(outcome.status == kBreach);
  CHECK_MESSAGE(names(outcome, "setuid"), outcome.error);
}

TEST_CASE("another thread's breach: the terminal is put back, and the main thread removes files") {
  const std::string doomed = new_file();
  const std::string kept = new_file();
  const Outcome outcome = in_child([&] {
    watch_for_breaches({.program = "test", .exit_status = kBreach, .restore = [] {
                          constexpr char kLine[] = "restored\n";
                          (void)!::write(2, kLine, sizeof kLine - 1);
                        }});
    auto box = Box::create({{.name = "tester", .calls = every_thread()}});
    if (!box) ::_exit(99);
    const RemovedOnBreach removed(doomed);
    { const RemovedOnBreach whole_by_now(kept); }
    std::thread thread([&] {
      (*box)->enter(0, "child");
      ::syscall(SYS_setuid, 0);
    });
    thread.join();
  });
  CHECK(outcome.status == kBreach);
  CHECK_MESSAGE(outcome.error.starts_with("restored\n"), outcome.error);
  CHECK_MESSAGE(names(outcome, "setuid"), outcome.error);
  CHECK(::access(doomed.c_str(), F_OK) != 0);
  CHECK(::access(kept.c_str(), F_OK) == 0);
  ::unlink(kept.c_str());
}

TEST_CASE("SIGSYS that somebody sends is no breach: it ends the process as ever") {
  CHECK(in_child([] { ::raise(SIGSYS); }).status == -SIGSYS);
}

TEST_CASE("a box counts what each kind may call, and has none for threads that cannot be") {
  auto box = Box::create({{.name = "one", .calls = {{"read"}, {"write"}, {"read"}}},
                          {.name = "none"},
                          {.name = "two", .calls = one_of("ioctl", 1, {1, 2, 3})}});
  REQUIRE(box);
  const Report report = (*box)->report();
  CHECK(report.kinds.size() == 2);
  CHECK(report.landlock == landlock_version());
  CHECK(report.sanitizer == sanitizer_name());
  if (report.sanitizer.empty()) {
    CHECK(report.kinds[0].calls == 2);
    CHECK(report.kinds[1].calls == 1);
    CHECK(to_string(report).starts_with("one 2, two 1 system calls; "));
  }
  const Outcome outcome = in_child([&] { (*box)->enter(1, "child"); });
  CHECK(outcome.status == 1);
  CHECK_MESSAGE(outcome.error.find("(none) cannot be closed") != std::string::npos, outcome.error);
}

TEST_CASE("a name that is no system call is a mistake of ours, and said") {
  const auto filter = Filter::compile({{"opneat"}});
  REQUIRE_FALSE(filter);
  CHECK(filter.error().find("opneat") != std::string::npos);
}

TEST_CASE("a call that the architecture does not have counts for nothing") {
  // Of 32-bit architectures only.
  const auto filter = Filter::compile({{"read"}, {"fstat64"}, {"socketcall"}});
  REQUIRE(filter);
  CHECK(filter->calls() == 1);
}
