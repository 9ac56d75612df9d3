#include "tools/bench/child.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/bench/clock.h"

namespace outboard::bench {
namespace {

constexpr int kFirstSafe = 100;  // descriptors are moved up here before they get their numbers

// All that the child does: async-signal-safe calls only, in the parent's memory, which waits.
struct Launch {
  char* const* argv;
  char* const* environment;
  int input, output, errors;
  const std::pair<int, int>* descriptors;
  std::size_t descriptor_count;
  pid_t parent;
  volatile int error;

  void run() {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
    ::setpgid(0, 0);  // Ctrl-C at the terminal is for this program, which ends its children
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) ::signal(signal, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    for (std::size_t i = 0; i < descriptor_count; ++i) {
      ::fcntl(descriptors[i].first, F_DUPFD, kFirstSafe + static_cast<int>(i));
    }
    ::dup2(input, 0);
    ::dup2(output, 1);
    ::dup2(errors, 2);
    for (std::size_t i = 0; i < descriptor_count; ++i) {
      ::dup2(kFirstSafe + static_cast<int>(i), descriptors[i].second);
      ::close(kFirstSafe + static_cast<int>(i));
    }
    ::execvpe(argv[0], argv, environment);
    error = errno;
    ::_exit(127);
  }
};

}  // namespace

std::string to_string(const Ended& ended) {
  return ended.signal != 0
             ? fmt::format("was ended by signal {} ({})", ended.signal, ::strsignal(ended.signal))
             : fmt::format("ended with status {}", ended.status);
}

Result<Child> Child::start(const ChildOptions& options) {
  std::vector<std::string> words = options.argv;
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  std::vector<std::string> added = options.environment;
  std::vector<char*> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.push_back(*entry);
  for (std::string& entry : added) environment.push_back(entry.data());
  std::string stamp;
  std::size_t stamp_at = 0;
  if (!options.stamp_variable.empty()) {
    stamp_at = environment.size();
    environment.push_back(nullptr);
  }
  environment.push_back(nullptr);

  const vfio_user::UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  Launch launch{argv.data(),
                environment.data(),
                null.get(),
                options.output >= 0 ? options.output : null.get(),
                options.errors >= 0 ? options.errors : null.get(),
                options.descriptors.data(),
                options.descriptors.size(),
                ::getpid(),
                0};

  Child child;
  child.started_ = monotonic_now();
  if (stamp_at != 0) {
    stamp = fmt::format("{}={}", options.stamp_variable, child.started_);
    environment[stamp_at] = stamp.data();
  }
  // vfork: the copy of this process's page tables would count as the child's start.
  child.pid_ = ::vfork();
  if (child.pid_ == 0) {
    launch.run();
    ::_exit(127);
  }
  if (child.pid_ < 0) {
    return fail(ExitStatus::failed,
                fmt::format("cannot start {}: {}", words.front(), std::strerror(errno)));
  }
  child.pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, child.pid_, 0)));
  if (const int error = launch.error; error != 0) {
    static_cast<void>(child.wait(-1));
    return fail(ExitStatus::missing,
                fmt::format("cannot run {}: {}", words.front(), std::strerror(error)));
  }
  return child;
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      started_(other.started_),
      pidfd_(std::move(other.pidfd_)),
      ended_(other.ended_) {}

Child::~Child() {
  if (pid_ < 0 || ended_) return;
  signal(SIGKILL);
  static_cast<void>(wait(-1));
}

void Child::signal(int number) const {
  if (pid_ > 0 && !ended_) ::kill(pid_, number);
}

std::optional<Ended> Child::wait(int milliseconds) {
  if (ended_ || pid_ < 0) return ended_;
  const std::uint64_t start = monotonic_now();
  for (;;) {
    int left = milliseconds;
    if (left > 0) {
      const auto passed = static_cast<int>((monotonic_now() - start) / 1'000'000U);
      left = passed < left ? left - passed : 0;
    }
    pollfd fd{pidfd_.get(), POLLIN, 0};
    const int ready = ::poll(&fd, 1, left);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return std::nullopt;
    break;
  }
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  ended_ = WIFSIGNALED(status) ? Ended{0, WTERMSIG(status)} : Ended{WEXITSTATUS(status), 0};
  return ended_;
}

Ended Child::stop(int grace) {
  signal(SIGTERM);
  if (!wait(grace)) signal(SIGKILL);
  return wait(-1).value_or(Ended{});
}

}  // namespace outboard::bench
