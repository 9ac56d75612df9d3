#include "vmm/box/box.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <utility>

#include <sys/prctl.h>
#include <unistd.h>

#include "vmm/box/breach.h"
#include "vmm/box/common_rules.h"
#include "vmm/box/process.h"
#include "vmm/box/sanitizer_rules.h"

namespace outboard::box {
namespace {

[[noreturn]] void cannot_close(std::string_view kind, const std::string& why) {
  std::fprintf(stderr, "the sandbox of a thread (%.*s) cannot be closed: %s\n",
               static_cast<int>(kind.size()), kind.data(), why.c_str());
  ::_exit(1);
}

}  // namespace

std::string to_string(const Report& report) {
  std::string text;
  for (const Report::Kind& kind : report.kinds) {
    text += (text.empty() ? "" : ", ") + kind.name + " " + std::to_string(kind.calls);
  }
  text += " system calls";
  text += report.landlock != 0 ? "; Landlock " + std::to_string(report.landlock)
                               : std::string("; no Landlock in this kernel");
  if (!report.sanitizer.empty()) text += "; with the calls of " + report.sanitizer;
  return text;
}

tl::expected<std::unique_ptr<Box>, std::string> Box::create(std::vector<ThreadKind> kinds) {
  if (const int error = filters_missing(); error != 0) {
    return tl::unexpected(std::string("this kernel refuses seccomp filters (") +
                          std::strerror(error) +
                          "), so that there is no sandbox; use a kernel "
                          "with CONFIG_SECCOMP_FILTER, or pass '--sandbox "
                          "off'");
  }
  return std::unique_ptr<Box>(new Box(std::move(kinds)));
}

Box::Box(std::vector<ThreadKind> kinds)
    : kinds_(std::move(kinds)), landlock_(landlock_version()), made_(kinds_.size()) {
  // Signals are for the threads that ask for them.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  maker_ = std::thread([this] { make_all(); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Box::~Box() {
  if (maker_.joinable()) maker_.join();
}

void Box::make_all() {
  // The first line of a log reads the time zone's file, which a boxed thread cannot.
  ::tzset();
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    Made one = make(kinds_[i]);
    {
      const std::lock_guard lock(mutex_);
      made_[i] = std::move(one);
      ready_ = i + 1;
    }
    changed_.notify_all();
  }
}

Box::Made Box::make(const ThreadKind& kind) const {
  Made made;
  if (kind.calls.empty()) {
    made.error = "this process has no such threads";
    return made;
  }
  auto filter = Filter::compile(join({kind.calls, sanitizer_rules()}));
  if (!filter) {
    made.error = filter.error();
    return made;
  }
  made.filter.emplace(std::move(*filter));
  if (landlock_ != 0) {
    auto files = FileRules::create(kind.folders, landlock_, sanitizer_name()[0] != '\0');
    if (!files) {
      made.error = files.error();
      return made;
    }
    made.files.emplace(std::move(*files));
  }
  return made;
}

const Box::Made& Box::made(std::size_t kind) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ready_ > kind; });
  return made_[kind];
}

void Box::enter(std::size_t kind, std::string_view name) {
  const ThreadKind& what = kinds_.at(kind);
  name_thread(what.name, name);
  sigset_t breach;
  sigemptyset(&breach);
  sigaddset(&breach, SIGSYS);
  ::pthread_sigmask(SIG_UNBLOCK, &breach, nullptr);

  const Made& walls = made(kind);
  if (!walls.error.empty()) cannot_close(what.name, walls.error);
  const auto must = [&](const char* step, int error) {
    if (error != 0) cannot_close(what.name, std::string(step) + ": " + std::strerror(error));
  };
  must("capset", keep_capabilities(what.capabilities));
  must("no_new_privs", ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? 0 : errno);
  if (walls.files) must("landlock_restrict_self", walls.files->install());
  must("seccomp", walls.filter->install());
}

Report Box::report() {
  Report report;
  report.landlock = landlock_;
  report.sanitizer = sanitizer_name();
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    if (made(i).filter) report.kinds.push_back({kinds_[i].name, made(i).filter->calls()});
  }
  return report;
}

}  // namespace outboard::box
