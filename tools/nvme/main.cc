// outboard-nvme: an NVMe controller as a vfio-user server.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "tools/nvme/backends.h"
#include "tools/nvme/options.h"
#include "tools/nvme/published_socket.h"
#include "tools/nvme/sandbox.h"
#include "tools/nvme/service_loop.h"
#include "tools/nvme/state_check.h"
#include "tools/nvme/statistics.h"
#include "vfio_user/given_fds.h"

namespace outboard::nvme {
namespace {

void say(const std::string& line) {
  std::fprintf(stderr, "outboard-nvme: %s\n", line.c_str());
}

vfio_user::UniqueFd signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return vfio_user::UniqueFd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

void tell_ready(int fd) {
  if (fd < 0) return;
  const char byte = '\n';
  if (write(fd, &byte, 1) != 1) {
    say("cannot write to --ready-fd " + std::to_string(fd) + ": " + std::strerror(errno));
  }
  close(fd);
}

void tell_first_read(int fd, const IoTimes& times) {
  const std::string line = io_times_json(times) + "\n";
  if (write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    say("cannot write to --first-read-fd " + std::to_string(fd) + ": " + std::strerror(errno));
  }
}

// Requests of a killed process end when the device below answers; longer than that is no restart.
constexpr std::chrono::seconds kLockPatience{30};
// Without a state file nothing tells a restart from a second server, which is to be refused soon.
constexpr std::chrono::seconds kShortLockPatience{2};

tl::expected<std::unique_ptr<Doorbells>, std::string> make_doorbells(const StateFile* state) {
  if (state == nullptr) return Doorbells::create();
  auto file = state->doorbell_file();
  if (!file) return tl::unexpected(file.error());
  return Doorbells::over(std::move(*file));
}

// Numbers for the names of descriptors; else what is wrong with them.
std::string resolve_given_fds(Options& options) {
  const auto passed = vfio_user::GivenFds::from_environment();
  std::vector<int> used;
  std::vector<std::string*> names = {&options.socket};
  for (NamespaceOptions& ns : options.namespaces) names.push_back(&ns.path);
  for (std::string* const name : names) {
    if (!vfio_user::is_given_fd(*name)) continue;
    const auto given = passed.find(*name);
    if (!given) return given.error().message;
    if (std::find(used.begin(), used.end(), given->fd) != used.end()) {
      return "'" + *name + "' is named twice; pass another descriptor";
    }
    used.push_back(given->fd);
    *name = given->text();
  }
  return {};
}

int run(int argc, char** argv) {
  const auto parsed = parse_options(argc, argv);
  if (const int* status = std::get_if<int>(&parsed)) return *status;
  Options options = std::get<Options>(parsed);
  if (const auto wrong = resolve_given_fds(options); !wrong.empty()) {
    say(wrong);
    return kExitUsage;
  }

  std::unique_ptr<box::Box> sandbox;
  if (options.sandbox) {
    auto made = make_sandbox(options);
    if (!made) {
      say(made.error());
      return kExitInternal;
    }
    sandbox = std::move(*made);
    if (sandbox->landlock() == 0) {
      say("this kernel has no Landlock: the sandbox keeps files away by system calls alone");
    }
  }
  // Before any thread that may get a signal exists, so that all inherit the mask.
  const vfio_user::UniqueFd signal_fd = signals();
  prctl(PR_SET_TIMERSLACK, 1000UL);  // ns; else every doorbell interval is 50 us longer

  const std::string serial = options.serial.empty() ? derive_serial(options) : options.serial;
  std::unique_ptr<StateFile> state;
  if (!options.state.empty()) {
    auto opened = StateFile::open(options.state, state_identity(options, serial));
    if (!opened) {
      say(opened.error());
      return kExitState;
    }
    state = std::move(*opened);
  }
  std::vector<std::string> remarks;
  const bool resumes = state && state->left_over();
  const LockWait wait = resumes ? LockWait{kLockPatience, say} : LockWait{kShortLockPatience, {}};
  auto namespaces = open_namespaces(options, serial, remarks, wait,
                                    [&sandbox] { enter(sandbox.get(), ThreadKind::pool, "pool"); });
  for (const std::string& remark : remarks) say(remark);
  if (!namespaces) {
    say(namespaces.error());
    return kExitImage;
  }
  auto doorbells = make_doorbells(state.get());
  if (!doorbells) {
    say(doorbells.error());
    return kExitInternal;
  }
  if (resumes) {
    const auto wrong = damage(state->state(), static_cast<u32>(namespaces->size()), options.queues,
                              static_cast<u16>(options.queues + 1));
    if (wrong) {
      say("state file '" + options.state + "': what the last server left is damaged (" + *wrong +
          "); the guest has to begin with a fresh controller");
      state->forget();
    }
  }

  ControllerOptions controller;
  controller.identity.serial = serial;
  controller.identity.firmware = OUTBOARD_VERSION;
  controller.identity.vendor = kPciVendor;
  controller.identity.subsystem_vendor = kPciVendor;
  controller.io_queues = options.queues;
  DoorbellMode mode = options.doorbells;
  if (const long page = ::sysconf(_SC_PAGESIZE);
      mode == DoorbellMode::page && page > static_cast<long>(kDoorbellPageSize)) {
    say("this host has pages of " + std::to_string(page / 1024) +
        " KiB, larger than the doorbell page: doorbells are trapped");
    mode = DoorbellMode::trap;
  }
  VfioDevice device(std::move(controller), std::move(*namespaces), std::move(*doorbells), mode,
                    state.get());

  auto socket = PublishedSocket::create(options.socket);
  if (!socket) {
    say(socket.error().message);
    return kExitSocket;
  }
  vfio_user::ServerOptions server_options;
  server_options.log = say;
  auto server = vfio_user::Server::listen(socket->take_fd(), device, std::move(server_options));
  if (!server) {
    say(server.error().message);
    return kExitSocket;
  }
  device.serve_through(server->get());
  enter(sandbox.get(), ThreadKind::service, "main");
  tell_ready(options.ready_fd);

  LoopOptions loop;
  loop.once = options.once;
  if (options.first_read_fd >= 0) {
    loop.first_read = [fd = options.first_read_fd](const IoTimes& times) {
      tell_first_read(fd, times);
    };
  }
  const auto ended = run_service(**server, device, signal_fd.get(), loop);
  device.leave();
  const bool flushed = device.controller().flush_all();
  if (options.stats) {
    std::fprintf(stderr, "%s\n",
                 statistics_json(device.controller().counters(), (*server)->counters(),
                                 sandbox ? std::optional(sandbox->report()) : std::nullopt)
                     .c_str());
  }
  if (!ended) {
    say(ended.error().message);
    return kExitInternal;
  }
  if (!flushed) {
    say("the last flush failed: the end of what the guest wrote may be lost");
    return kExitFlush;
  }
  return kExitDone;
}

}  // namespace
}  // namespace outboard::nvme

int main(int argc, char** argv) {
  try {
    return outboard::nvme::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "outboard-nvme: internal error: %s\n", error.what());
    return outboard::nvme::kExitInternal;
  }
}
