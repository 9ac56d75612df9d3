// The program in a process of its own, to be killed: everything but the command line, forked from
// the test, with a place to die drawn by the test (tools/nvme/fail_point.h).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/nvme_program.h"
#include "tools/nvme/fail_point.h"
#include "tools/nvme/file_backends.h"
#include "tools/nvme/state_check.h"
#include "tools/nvme/state_file.h"

namespace outboard::nvme::test {

struct VictimOptions {
  std::string image;
  std::string state;
  DoorbellMode mode = DoorbellMode::shadow;
  bool threads = false;
  FailPlan plan{};
  std::string program{};  // run this one, which has no fail points armed; empty: this very process
};

inline constexpr u16 kVictimQueues = 4;

class Victim {
 public:
  explicit Victim(const VictimOptions& options) : path(socket_path()) {
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    ready_.reset(ends[0]);
    const pid_t parent = getpid();
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(0);
      if (!options.program.empty()) run_program(options, ends[1]);
      _exit(serve(options, ends[1]));
    }
    close(ends[1]);
    death_.reset(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
    REQUIRE(death_);
  }
  ~Victim() {
    if (!ended_) {
      kill();
      wait();
    }
    unlink(path.c_str());
  }
  Victim(const Victim&) = delete;
  Victim& operator=(const Victim&) = delete;

  // Waits until it listens; false: it died before.
  bool ready() {
    char byte;
    return read(ready_.get(), &byte, 1) == 1;
  }
  void kill() { ::kill(pid_, SIGKILL); }
  void ask_to_end() { ::kill(pid_, SIGTERM); }
  // Readable when it is dead.
  int death_fd() const { return death_.get(); }
  bool dead() const {
    pollfd event{death_.get(), POLLIN, 0};
    return poll(&event, 1, 0) == 1;
  }
  int wait() {
    int status = 0;
    REQUIRE(waitpid(pid_, &status, 0) == pid_);
    ended_ = true;
    return status;
  }

  const std::string path;

 private:
  [[noreturn]] void run_program(const VictimOptions& options, int ready) {
    const int inherited = dup(ready);  // without close-on-exec
    const char* mode = options.mode == DoorbellMode::shadow ? "shadow"
                       : options.mode == DoorbellMode::page ? "page"
                                                            : "trap";
    const std::string fd = std::to_string(inherited);
    std::vector<const char*> words{options.program.c_str(),
                                   "--socket",
                                   path.c_str(),
                                   "--file",
                                   options.image.c_str(),
                                   "--queues",
                                   "4",
                                   "--doorbells",
                                   mode,
                                   "--ready-fd",
                                   fd.c_str()};
    if (!options.state.empty()) words.insert(words.end(), {"--state", options.state.c_str()});
    words.push_back(nullptr);
    execv(words[0], const_cast<char* const*>(words.data()));
    _exit(30);
  }
  // The exit status says what went wrong: none of it may happen.
  int serve(const VictimOptions& options, int ready) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    const vfio_user::UniqueFd stop(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    auto file = StateFile::open(options.state, {.controller = 1, .namespaces = {7}});
    if (!file) return 20;
    if ((*file)->left_over() &&
        damage((*file)->state(), 1, kVictimQueues, kVictimQueues + 1).has_value()) {
      return 21;
    }
    auto image = FileImage::open(options.image, false, 512, {std::chrono::seconds(30), {}});
    if (!image) return 22;
    std::string why;
    Namespace ns;
    if (!options.threads) ns.backend = make_uring_backend(*image, why);
    if (!ns.backend) ns.backend = make_thread_backend(std::move(*image), 3);
    auto page = (*file)->doorbell_file();
    if (!page) return 23;
    fail_plan = options.plan;
    ControllerOptions controller;
    controller.io_queues = kVictimQueues;
    VfioDevice device(std::move(controller), one(std::move(ns)),
                      std::move(*Doorbells::over(std::move(*page))), options.mode, file->get());
    auto socket = PublishedSocket::create(path);
    if (!socket) return 24;
    auto server = vfio_user::Server::listen(socket->take_fd(), device);
    if (!server) return 25;
    device.serve_through(server->get());
    if (write(ready, "x", 1) != 1) return 26;
    const bool good = run_service(**server, device, stop.get(), {}).has_value();
    device.leave();
    return good && device.controller().flush_all() ? 0 : 27;
  }

  pid_t pid_ = -1;
  bool ended_ = false;
  vfio_user::UniqueFd ready_;
  vfio_user::UniqueFd death_;
};

}  // namespace outboard::nvme::test
