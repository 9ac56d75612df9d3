#include "tools/bench/guest_run.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "tools/bench/boot_report.h"
#include "tools/bench/clock.h"
#include "tools/bench/memory_file.h"
#include "tools/bench/private_folder.h"

namespace outboard::bench {
namespace {

using vfio_user::UniqueFd;

constexpr int kLinger = 50;    // milliseconds: the VMM notes the completion that the server told of
constexpr int kGrace = 5'000;  // milliseconds from the request to end until SIGKILL

class Watched {
 public:
  Watched(const RunPlan& plan, Interrupt& interrupt) : plan_(plan), interrupt_(interrupt) {}

  Result<Run> run() {
    std::array<int, 2> pipe{};
    if (::pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK) != 0)
      return fail(ExitStatus::failed, fmt::format("pipe: {}", std::strerror(errno)));
    console_.reset(pipe[0]);
    UniqueFd console_out(pipe[1]);
    // The guest's console must never find its pipe full: the writer waits, the reader is here.
    ::fcntl(console_out.get(), F_SETFL, 0);
    errors_ = memory_file("vmm-errors");

    ChildOptions options;
    options.argv = plan_.argv;
    options.output = console_out.get();
    options.errors = errors_.get();
    if (!plan_.report.empty()) {
      ::unlink(plan_.report.c_str());
      options.stamp_variable = "OUTBOARD_STARTED_AT";
    }
    auto child = Child::start(options);
    if (!child) return tl::unexpected(child.error());
    console_out.reset();

    if (auto watched = watch(*child); !watched) return tl::unexpected(watched.error());
    if (auto read = read_report(*child); !read) return tl::unexpected(read.error());
    std::ranges::stable_sort(run_.marks, {}, &Mark::at);
    return std::move(run_);
  }

 private:
  void mark(std::string_view device, std::string_view key, const char* name, double at) {
    run_.marks.push_back({std::string(device), std::string(key), name, at});
  }

  tl::unexpected<Error> failure(const std::string& what) {
    return fail(ExitStatus::failed,
                fmt::format("{} {}\n{}", plan_.argv.front(), what, content_of(errors_.get())));
  }

  double since_start(const Child& child) const {
    return static_cast<double>(monotonic_now() - child.started());
  }

  // Until the VMM has ended.
  Result<void> watch(Child& child) {
    const auto limit = static_cast<double>(plan_.limit.count()) * 1e6;
    for (bool done = false; !done;) {
      const double left = (limit - since_start(child)) / 1e6;
      if (left <= 0) {
        if (plan_.any_status) break;
        auto late = failure(fmt::format("was not done within {} s; --limit changes that. Its end:",
                                        plan_.limit.count() / 1000));
        late.value().late = true;
        return late;
      }
      std::array<pollfd, 4> fds = {
          {{child.pidfd(), POLLIN, 0},
           {interrupt_.fd(), POLLIN, 0},
           {console_.get(), POLLIN, 0},
           {plan_.server ? plan_.server->first_read_fd() : -1, POLLIN, 0}}};
      if (::poll(fds.data(), fds.size(), static_cast<int>(left) + 1) < 0 && errno != EINTR)
        return failure(fmt::format("cannot be watched: {}", std::strerror(errno)));
      if (fds[1].revents != 0) return interrupt_.error();
      if (fds[2].revents != 0 && read_console(child)) done = true;
      if (fds[3].revents != 0 && read_server(child)) done = true;
      if (fds[0].revents != 0) {
        static_cast<void>(read_console(child));
        return judge(*child.wait(-1), since_start(child));
      }
    }
    return end(child);
  }

  // True when this was what the run waited for.
  bool read_console(Child& child) {
    std::array<char, 4096> buffer;
    const ssize_t count = ::read(console_.get(), buffer.data(), buffer.size());
    if (count == 0) console_.reset();
    if (count <= 0) return false;
    const double now = since_start(child);
    text_.append(buffer.data(), static_cast<std::size_t>(count));
    if (!seen_byte_) {
      seen_byte_ = true;
      if (plan_.read_memory) {
        run_.memory = memory_of_status(read_file(fmt::format("/proc/{}/status", child.pid())));
      }
      mark("bench", kFirstByte, "first console byte, seen outside", now);
      if (plan_.until == Until::first_byte) return true;
    }
    if (plan_.until == Until::console_line && text_.find(plan_.line) != std::string::npos) {
      mark("bench", kConsoleLine, "console line, seen outside", now);
      return true;
    }
    if (text_.size() > kKeep + plan_.line.size()) text_.erase(0, text_.size() - kKeep);
    return false;
  }

  bool read_server(Child& child) {
    auto found = plan_.server->take_marks();
    if (found.empty()) return false;
    for (Mark& mark : found) {
      mark.at -= static_cast<double>(child.started());
      run_.marks.push_back(std::move(mark));
    }
    return plan_.until == Until::first_read;
  }

  // outboard writes its report when it is asked to end; others are only killed.
  Result<void> end(Child& child) {
    if (plan_.report.empty()) {
      child.signal(SIGKILL);
      static_cast<void>(child.wait(-1));
      return {};
    }
    static_cast<void>(child.wait(kLinger));
    child.signal(SIGTERM);  // its power button; with the second signal it ends at once
    child.signal(SIGINT);
    const double asked = since_start(child);
    while (!child.wait(20)) {
      static_cast<void>(read_console(child));  // a full pipe would keep it from ending
      if (since_start(child) - asked > kGrace * 1e6) return failure("does not end when asked to");
    }
    return {};
  }

  Result<void> judge(const Ended& ended, double at) {
    mark("bench", kEnded, "process ended", at);
    if (plan_.any_status || plan_.until == Until::exit) {
      // QEMU's isa-debug-exit turns the guest's 0 into 1.
      const bool expected = ended.ok() || (plan_.report.empty() && ended.status == 1 && seen_byte_);
      if (expected || plan_.any_status) return {};
    }
    return failure(fmt::format("{}{}", to_string(ended),
                               plan_.until == Until::exit ? ":" : " before the awaited event:"));
  }

  Result<void> read_report(const Child& child) {
    if (plan_.report.empty()) return {};
    const std::string text = read_file(plan_.report);
    if (text.empty()) return failure("left no boot report:");
    auto report = parse_boot_report(text);
    if (!report) return failure("left a boot report that cannot be used: " + report.error());
    const double shift = static_cast<double>(report->start) - static_cast<double>(child.started());
    for (Mark& mark : report->marks) {
      if (mark.key == "process_start") continue;  // zero, by definition
      mark.at += shift;
      run_.marks.push_back(std::move(mark));
    }
    run_.counts = std::move(report->counts);
    if (!run_.memory) run_.memory = report->memory_at_first_run;
    return {};
  }

  static constexpr std::size_t kKeep = 4096;  // of the console, for a line in two reads

  const RunPlan& plan_;
  Interrupt& interrupt_;
  UniqueFd console_;
  UniqueFd errors_;
  std::string text_;
  bool seen_byte_ = false;
  Run run_;
};

}  // namespace

Result<Run> run_guest(const RunPlan& plan, Interrupt& interrupt) {
  return Watched(plan, interrupt).run();
}

std::optional<Memory> memory_of_status(std::string_view status) {
  const auto field = [status](std::string_view name) -> std::optional<std::uint64_t> {
    std::size_t at = status.find(name);
    if (at == std::string_view::npos) return std::nullopt;
    at = status.find_first_of("0123456789", at + name.size());
    if (at == std::string_view::npos) return std::nullopt;
    std::uint64_t kib = 0;
    std::from_chars(status.data() + at, status.data() + status.size(), kib);
    return kib * 1024;
  };
  const auto anonymous = field("RssAnon:");
  const auto file = field("RssFile:");
  if (!anonymous || !file) return std::nullopt;
  return Memory{*anonymous, *file, field("RssShmem:").value_or(0)};
}

}  // namespace outboard::bench
