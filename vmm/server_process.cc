#include "vmm/server_process.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

namespace outboard::vmm {
namespace {

namespace fs = std::filesystem;
using vfio_user::Error;
using vfio_user::UniqueFd;
using Clock = std::chrono::steady_clock;

constexpr unsigned long kAcceptsConnections = 0x10000;  // __SO_ACCEPTCON in /proc/net/unix

tl::unexpected<Error> fail(int code, std::string message) {
  return tl::unexpected(Error{Error::Kind::system, code, std::move(message)});
}

// A bare name means the program installed beside this one, if there is one.
std::string resolve_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  std::error_code code;
  const fs::path self = fs::read_symlink("/proc/self/exe", code);
  if (!code && ::access((self.parent_path() / name).c_str(), X_OK) == 0)
    return (self.parent_path() / name).string();
  return name;
}

// A private folder for one socket; short, because a socket's path may have 107 bytes at most.
vfio_user::Result<std::string> make_private_directory() {
  const char* runtime = ::getenv("XDG_RUNTIME_DIR");
  std::string base = runtime != nullptr && std::strlen(runtime) < 64 ? runtime : "/tmp";
  std::string pattern = base + "/outboard-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) {
    pattern = "/tmp/outboard-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr)
      return fail(errno, fmt::format("cannot make a folder for a device socket in /tmp: {}",
                                     std::strerror(errno)));
  }
  return pattern;
}

// Milliseconds from now until `end` for poll(); 0 when it has passed.
int remaining(Clock::time_point end) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
  return left < 0 ? 0 : static_cast<int>(left);
}

// The child's side of fork(): only async-signal-safe calls. Reports a failed execve through `out`.
[[noreturn]] void run_child(const std::vector<char*>& argv, const cpu_set_t* cpus, int out,
                            pid_t parent) {
  // The parent's handlers are not for this process, which may get a signal before it execs.
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE}) ::signal(signal, SIG_DFL);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(127);  // the parent died before the line above
  ::setpgid(0, 0);  // Ctrl-C at the terminal is for the VMM; it stops its servers in order
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC); null >= 0) ::dup2(null, 0);
  ::dup2(2, 1);  // the guest's console owns standard output
  if (cpus != nullptr) ::sched_setaffinity(0, sizeof *cpus, cpus);
  ::execvp(argv[0], argv.data());
  const int error = errno;
  [[maybe_unused]] const ssize_t written = ::write(out, &error, sizeof error);
  ::_exit(127);
}

// Whether a socket bound to `path` is listed by the kernel without the listening flag. A server
// that listens first and renames then is listed under the old name, if at all: that one is ready.
bool bound_but_not_listening(const std::string& path) {
  std::ifstream sockets("/proc/net/unix");
  for (std::string line; std::getline(sockets, line);) {
    if (!line.ends_with(" " + path)) continue;
    std::istringstream fields(line);
    std::string slot, references, protocol, flags;
    fields >> slot >> references >> protocol >> flags;
    if (std::strtoul(flags.c_str(), nullptr, 16) & kAcceptsConnections) return false;
    return true;
  }
  return false;
}

}  // namespace

vfio_user::Result<std::unique_ptr<ServerProcess>> ServerProcess::start(
    const std::string& name, const std::vector<std::string>& argv,
    const std::vector<int>& affinity) {
  auto directory = make_private_directory();
  if (!directory) return tl::unexpected(directory.error());

  std::unique_ptr<ServerProcess> process(new ServerProcess());
  process->directory_ = *directory;
  process->socket_path_ = *directory + "/device.sock";

  process->name_ = name;
  process->affinity_ = affinity;
  std::vector<std::string>& words = process->words_;
  bool placed = false;
  for (std::string word : argv) {
    for (std::size_t at; (at = word.find("{socket}")) != std::string::npos; placed = true)
      word.replace(at, 8, process->socket_path_);
    words.push_back(std::move(word));
  }
  words.front() = resolve_program(words.front());
  if (!placed) {
    words.emplace_back("--socket");
    words.push_back(process->socket_path_);
  }
  if (auto spawned = process->spawn(); !spawned) return tl::unexpected(spawned.error());
  return process;
}

vfio_user::Result<void> ServerProcess::spawn() {
  std::vector<char*> pointers;
  for (std::string& word : words_) pointers.push_back(word.data());
  pointers.push_back(nullptr);

  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  for (const int cpu : affinity_)
    if (cpu < CPU_SETSIZE) CPU_SET(cpu, &cpus);

  std::array<int, 2> pipe_fds{};
  if (::pipe2(pipe_fds.data(), O_CLOEXEC) != 0)
    return fail(errno, fmt::format("device '{}': pipe: {}", name_, std::strerror(errno)));
  UniqueFd in(pipe_fds[0]);
  UniqueFd out(pipe_fds[1]);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0)
    return fail(errno, fmt::format("device '{}': cannot start its server: {}", name_,
                                   std::strerror(errno)));
  if (child == 0) run_child(pointers, affinity_.empty() ? nullptr : &cpus, out.get(), parent);
  pid_ = child;
  pidfd_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  out.reset();
  int error = 0;
  if (::read(in.get(), &error, sizeof error) == sizeof error)
    return fail(error,
                fmt::format("device '{}': cannot run its server '{}': {}; give the full path "
                            "of the program in 'server'",
                            name_, words_.front(), std::strerror(error)));
  return {};
}

vfio_user::Result<void> ServerProcess::revive(bool insist) {
  if (pid_ > 0) {
    // A process that is being killed closes its sockets a moment before it has ended.
    constexpr int kAfterItsSockets = 20;
    pollfd ended{pidfd_.get(), POLLIN, 0};
    while (::poll(&ended, 1, kAfterItsSockets) < 0 && errno == EINTR) {
    }
    const bool running = (ended.revents & POLLIN) == 0;
    if (running && !insist) return {};
    if (running) ::kill(pid_, SIGKILL);
    reap();
  }
  ::unlink(socket_path_.c_str());
  return spawn();
}

void ServerProcess::reap() {
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  pidfd_.reset();
}

vfio_user::Result<void> ServerProcess::wait_until_listening(std::chrono::milliseconds deadline,
                                                            int cancel_fd) {
  const Clock::time_point end = Clock::now() + deadline;
  watch_.reset(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!watch_ || ::inotify_add_watch(watch_.get(), directory_.c_str(), IN_CREATE | IN_MOVED_TO) < 0)
    return fail(errno, fmt::format("inotify: {}", std::strerror(errno)));

  for (;;) {
    const bool exists = ::access(socket_path_.c_str(), F_OK) == 0;
    if (exists && !bound_but_not_listening(socket_path_)) return {};
    // Between bind() and listen() lie microseconds, and there is no event for the second.
    const int left = remaining(end);
    std::array<pollfd, 3> fds = {
        {{watch_.get(), POLLIN, 0}, {pidfd_.get(), POLLIN, 0}, {cancel_fd, POLLIN, 0}}};
    ::poll(fds.data(), fds.size(), exists ? std::min(left, 1) : left);
    if ((fds[1].revents & POLLIN) != 0) {
      siginfo_t info{};
      ::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED | WNOWAIT);
      const std::string how = info.si_code == CLD_EXITED
                                  ? fmt::format("ended with status {}", info.si_status)
                                  : fmt::format("was ended by signal {}", info.si_status);
      return fail(ECHILD, fmt::format("its server {} before it listened; its own "
                                      "message is above",
                                      how));
    }
    if ((fds[2].revents & POLLIN) != 0) return fail(ECANCELED, "waiting for its server was ended");
    std::array<char, 4096> events;
    while (::read(watch_.get(), events.data(), events.size()) > 0) {
    }
    if (remaining(end) == 0)
      return fail(ETIMEDOUT, fmt::format("its server did not listen on {} within {} ms; "
                                         "does it take the socket's path where {{socket}} stands?",
                                         socket_path_, deadline.count()));
  }
}

void ServerProcess::stop(std::chrono::milliseconds grace) {
  if (pid_ > 0) {
    ::kill(pid_, SIGTERM);
    pollfd ended{pidfd_.get(), POLLIN, 0};
    const Clock::time_point end = Clock::now() + grace;
    while (::poll(&ended, 1, remaining(end)) < 0 && errno == EINTR) {
    }
    if ((ended.revents & POLLIN) == 0) ::kill(pid_, SIGKILL);
    reap();
  }
  if (!directory_.empty()) {
    std::error_code code;
    fs::remove_all(directory_, code);
    directory_.clear();
  }
}

ServerProcess::~ServerProcess() {
  stop();
}

}  // namespace outboard::vmm
