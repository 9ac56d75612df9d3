#include "vmm/box/breach.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/box/syscall_names.h"

namespace outboard::box {
namespace {

constexpr int kSeccomp = 1;         // SYS_SECCOMP of <asm-generic/siginfo.h>
constexpr int kCleanUpTime = 1000;  // ms that other threads wait for the main thread

// A signal handler has no other way to what it needs.
constinit std::atomic<const char*> program{""};
constinit std::atomic<int> exit_status{1};
constinit std::atomic<void (*)()> restore{nullptr};
constinit std::atomic<pid_t> main_thread{0};
constinit std::atomic<bool> breached{false};
constinit std::array<std::atomic<const char*>, 16> doomed{};

constinit thread_local std::array<char, 16> thread_kind{};
constinit thread_local std::array<char, 32> thread_name{};

void copy(std::string_view text, std::span<char> into) {
  const std::size_t size = std::min(text.size(), into.size() - 1);
  std::memcpy(into.data(), text.data(), size);
  into[size] = '\0';
}

// A line of bounded length, put together without the allocator.
class Line {
 public:
  Line& operator<<(std::string_view text) {
    const std::size_t size = std::min(text.size(), text_.size() - size_);
    std::memcpy(text_.data() + size_, text.data(), size);
    size_ += size;
    return *this;
  }
  Line& operator<<(long number) {
    std::array<char, 24> digits;
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number);
    return *this << std::string_view(digits.data(), end.ptr);
  }
  void write() const {
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text_.data(), size_);
  }

 private:
  std::array<char, 512> text_;
  std::size_t size_ = 0;
};

void say(long call) {
  const char* const name = syscall_name(call);
  Line line;
  line << program.load() << ": error: the sandbox forbids thread '";
  line << (thread_name[0] != '\0' ? thread_name.data() : "?") << "' (";
  line << (thread_kind[0] != '\0' ? thread_kind.data() : "no kind") << ") the system call ";
  line << (name != nullptr ? name : "number") << " " << call << "; it ends with status ";
  line << long{exit_status.load()} << ". Please report it; '--sandbox off' runs without\n";
  line.write();
}

[[noreturn]] void end_on_main() {
  for (const auto& path : doomed) {
    if (const char* const file = path.load(); file != nullptr) ::unlink(file);
  }
  ::_exit(exit_status.load());
}

void on_signal(int signal, siginfo_t* info, void* /*context*/) {
  const pid_t here = static_cast<pid_t>(::syscall(SYS_gettid));
  const bool by_filter = info->si_code == kSeccomp;
  if (!by_filter) {
    if (breached.load() && here == main_thread.load()) end_on_main();
    ::signal(signal, SIG_DFL);  // somebody sent it
    ::raise(signal);
    return;
  }
  if (breached.exchange(true)) {  // one line is enough
    if (here == main_thread.load()) end_on_main();
    ::poll(nullptr, 0, kCleanUpTime);
    ::_exit(exit_status.load());
  }
  if (void (*const undo)() = restore.load(); undo != nullptr) undo();
  say(info->si_syscall);
  if (here == main_thread.load()) end_on_main();
  ::syscall(SYS_tgkill, ::getpid(), main_thread.load(), SIGSYS);
  ::poll(nullptr, 0, kCleanUpTime);
  ::_exit(exit_status.load());
}

}  // namespace

void watch_for_breaches(const BreachPolicy& policy) {
  program.store(policy.program);
  exit_status.store(policy.exit_status);
  restore.store(policy.restore);
  main_thread.store(static_cast<pid_t>(::syscall(SYS_gettid)));
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGSYS, &action, nullptr);
}

void name_thread(std::string_view kind, std::string_view name) {
  copy(kind, thread_kind);
  copy(name, thread_name);
}

RemovedOnBreach::RemovedOnBreach(std::string_view path)
    : path_(std::make_unique<std::string>(path)) {
  for (auto& place : doomed) {
    const char* none = nullptr;
    if (place.compare_exchange_strong(none, path_->c_str())) return;
  }
}

RemovedOnBreach::~RemovedOnBreach() {
  if (!path_) return;
  for (auto& place : doomed) {
    const char* mine = path_->c_str();
    if (place.compare_exchange_strong(mine, nullptr)) return;
  }
}

RemovedOnBreach::RemovedOnBreach(RemovedOnBreach&& other) noexcept = default;

RemovedOnBreach& RemovedOnBreach::operator=(RemovedOnBreach&& other) noexcept {
  std::swap(path_, other.path_);
  return *this;
}

}  // namespace outboard::box
