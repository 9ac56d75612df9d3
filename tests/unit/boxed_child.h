// A child process that goes into a box and does what a test says there.
#pragma once

#include <array>
#include <csignal>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <doctest/doctest.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/box/breach.h"
#include "vmm/box/common_rules.h"
#include "vmm/box/filter.h"
#include "vmm/box/sanitizer_rules.h"

namespace outboard::box::test {

inline constexpr int kBreach = 42;  // the exit status of a child that did what it may not

struct Outcome {
  int status = -1;    // the exit status, or minus the signal that ended it
  std::string error;  // what it wrote on standard error
};

// Forks; the child calls `action` and ends with status 0, unless something else ends it.
inline Outcome in_child(const std::function<void()>& action) {
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[0]);
    ::close(ends[1]);
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    ::alarm(60);
    watch_for_breaches({.program = "test", .exit_status = kBreach});
    action();
    ::_exit(0);
  }
  ::close(ends[1]);
  Outcome outcome;
  std::array<char, 512> bytes;
  for (ssize_t got; (got = ::read(ends[0], bytes.data(), bytes.size())) > 0;) {
    outcome.error.append(bytes.data(), static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return outcome;
}

// The same behind a filter of these rules, with the least that sanitizers need: `action` makes
// system calls and little else.
inline Outcome behind(const CallRules& rules, const std::function<void()>& action) {
  const auto filter = Filter::compile(join({rules, sanitizer_checks()}));
  REQUIRE_MESSAGE(filter, filter.error());
  return in_child([&] {
    name_thread("tester", "child");
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (filter->install() != 0) ::_exit(99);
    action();
  });
}

// What the line about a forbidden call says of it: "openat 257".
inline bool names(const Outcome& outcome, std::string_view call) {
  return outcome.error.find(
             "test: error: the sandbox forbids thread 'child' (tester) the system "
             "call " +
             std::string(call) + " ") != std::string::npos;
}

// A call that fails with an error of its own, or does nothing, where it is allowed.
struct Call {
  const char* name;
  long number;
  std::array<long, 4> arguments;
  std::string_view allowed;  // the letters of the kinds of threads that may
};

// Makes each call behind the rules of the kind `letter`: it passes, or it is told and ends the
// child.
inline void check_calls(const CallRules& rules, char letter, std::span<const Call> calls) {
  for (const Call& call : calls) {
    CAPTURE(letter);
    CAPTURE(call.name);
    CAPTURE(call.arguments[1]);
    const auto& [a, b, c, d] = call.arguments;
    const Outcome outcome = behind(rules, [&] { ::syscall(call.number, a, b, c, d, -1, 0); });
    if (call.allowed.find(letter) != std::string_view::npos) {
      CHECK_MESSAGE(outcome.status == 0, outcome.error);
    } else {
      CHECK(outcome.status == kBreach);
      CHECK_MESSAGE(names(outcome, call.name), outcome.error);
    }
  }
}

}  // namespace outboard::box::test
