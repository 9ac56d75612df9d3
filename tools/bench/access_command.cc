#include "tools/bench/access_command.h"

#include <csignal>
#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/core.h>
#include <sched.h>
#include <unistd.h>

#include "tools/bench/access_measure.h"
#include "tools/bench/access_nvme.h"
#include "tools/bench/access_report.h"
#include "tools/bench/host_facts.h"
#include "tools/bench/programs.h"

namespace outboard::bench {
namespace {

constexpr const char* kDescription =
    "How long each kind of access to a device takes, beside what the host itself takes for it";

constexpr const char* kFooter = R"(
A small guest of its own (no Linux) runs in outboard and times its accesses with the CPU's counter;
its devices are servers in processes of their own. It runs on software KVM too. Each row stands beside
its floor, measured in turn with it in the same run:
  trapped BAR read    an exit of the same guest to the smallest loop around KVM_RUN, and a message to
                      another process and its answer
  posted BAR write    the same exit, and send() to another process that is blocked in recv()
  ioeventfd store     the same store in the smallest machine, on an eventfd that a process waits for;
                      also the time until that process has said that it is awake
  store to a page     a store to the guest's own memory
  4 KiB NVMe read     the same read by io_uring from a file in memory, without a guest
and with the exits to user space, the messages and the replies that one operation costs.
A ratio is the median over the rounds; compare ratios, not times, on a busy or virtual machine.
Whoever asks (outboard, the smallest machine) is bound to one CPU and whoever answers to another.

NVMe controllers are measured one after the other, in turn forwards and backwards. Another server
than outboard-nvme is started by --nvme-server (through sh; {socket} is where it must listen, SIGTERM
ends it), or listens at --nvme-socket all the time: one that polls then takes a CPU from the others.

Examples:
  outboard-bench access
  outboard-bench access --json access.json --vmm-cpu 3 --server-cpu 2
  outboard-bench access --only nvme --modes page,shadow --repetitions 11 --label SPDK \
    --nvme-server 'ln -s cntrl {socket}; exec start-nvmf $(dirname {socket})'

Exit status: 0 measured, also when a target is missed; 1 something failed; 2 wrong command line;
3 a program is missing; 4 the results cannot be written; 128+n ended by signal n.)";

struct AccessCommand {
  std::string outboard;
  std::string nvme;
  std::string only = "all";
  std::vector<std::string> modes = {"page", "shadow", "trap"};
  std::uint32_t rounds = 50;
  std::uint32_t repetitions = 5;
  double idle_seconds = 2;
  std::string server;
  std::string socket;
  std::string label = "other";
  bool shadow = false;
  std::string json;
  Placement placement;
  bool unpinned = false;
};

volatile std::sig_atomic_t caught = 0;

// An interrupted wait fails, and everything that was started ends with its owner.
void catch_signals() {
  struct sigaction action {};
  action.sa_handler = [](int number) { caught = number; };
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    ::sigaction(number, &action, nullptr);
    sigaddset(&set, number);
  }
  ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

bool show_progress(const std::string& what, double part) {
  if (::isatty(STDERR_FILENO) == 1) {
    fmt::print(stderr, "\r\033[K{:>3.0f} %  {}", part * 100, what);
    if (part >= 1) fmt::print(stderr, "\r\033[K");
    std::fflush(stderr);
  }
  return caught == 0;
}

// Two different CPUs if there are two: figures of a machine whose scheduler moves one side about do
// not compare. The servers get the first, where one that polls binds itself by default.
Placement default_placement() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return {};
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<std::size_t>(cpu), &set)) cpus.push_back(cpu);
  }
  if (cpus.size() < 2) return {};
  return {.vmm = cpus.back(), .server = cpus.front()};
}

std::string placement_text(const Placement& placement) {
  if (!placement.vmm) return "outboard and the servers wherever the scheduler puts them";
  return fmt::format("outboard on CPU {}, the servers on CPU {}", *placement.vmm,
                     *placement.server);
}

NvmeSettings nvme_settings(const AccessCommand& command) {
  NvmeSettings settings;
  settings.outboard = command.outboard;
  settings.placement = command.placement;
  settings.repetitions = command.repetitions;
  settings.idle = std::chrono::milliseconds(static_cast<int>(command.idle_seconds * 1000));
  settings.progress = show_progress;
  for (const std::string& mode : command.modes) {
    settings.contenders.push_back({.key = mode,
                                   .name = "outboard-nvme " + mode,
                                   .shadow = mode == "shadow",
                                   .ours = true,
                                   .server = {command.nvme, "--memory", "64M", "--doorbells", mode},
                                   .socket = {}});
  }
  if (!command.server.empty() || !command.socket.empty()) {
    NvmeContender other{.key = "other",
                        .name = command.label,
                        .shadow = command.shadow,
                        .ours = false,
                        .server = {},
                        .socket = command.socket};
    if (!command.server.empty()) other.server = {"/bin/sh", "-c", command.server};
    settings.contenders.push_back(std::move(other));
  }
  return settings;
}

int complain(ExitStatus status, const std::string& message) {
  fmt::print(stderr, "outboard-bench: {}\n", message);
  return static_cast<int>(status);
}

int run(AccessCommand& command) {
  auto outboard = find_program("outboard", command.outboard, "--outboard");
  if (!outboard) return complain(outboard.error().status, outboard.error().message);
  command.outboard = *outboard;
  auto nvme = find_program("outboard-nvme", command.nvme, "--outboard-nvme");
  if (!nvme) return complain(nvme.error().status, nvme.error().message);
  command.nvme = *nvme;
  const std::string machine = to_string(host_facts());  // before this process is bound
  if (!command.placement.vmm && !command.unpinned) command.placement = default_placement();
  if (!bind_to(command.placement.vmm)) {
    return complain(ExitStatus::usage,
                    fmt::format("--vmm-cpu {}: there is no such CPU", *command.placement.vmm));
  }
  if (!command.json.empty() && !std::ofstream(command.json, std::ios::app)) {
    return complain(ExitStatus::output, "cannot write " + command.json);
  }
  catch_signals();
  const AccessSetting setting{first_line_of({command.outboard, "--version"}), machine,
                              placement_text(command.placement)};
  AccessFigures figures;
  vfio_user::Result<void> done;
  if (command.only != "nvme") {
    AccessSettings settings;
    settings.outboard = command.outboard;
    settings.placement = command.placement;
    settings.rounds = command.rounds;
    settings.progress = show_progress;
    done = measure_accesses(settings, figures);
  }
  if (done && command.only != "accesses") done = measure_nvme(nvme_settings(command), figures);
  if (caught != 0) return 128 + caught;
  if (!done) return complain(ExitStatus::failed, done.error().message);

  fmt::print("{}", access_table(setting, figures));
  if (command.json.empty()) return 0;
  std::ofstream file(command.json);
  file << access_json(setting, figures);
  file.close();
  if (!file) return complain(ExitStatus::output, "cannot write " + command.json);
  return 0;
}

}  // namespace

void add_access_command(CLI::App& app, int& status) {
  CLI::App* access = app.add_subcommand("access", kDescription);
  access->footer(kFooter);
  const auto command = std::make_shared<AccessCommand>();
  access->add_option("--outboard", command->outboard, "The program outboard")->type_name("PATH");
  access->add_option("--outboard-nvme", command->nvme, "The program outboard-nvme")
      ->type_name("PATH");
  access->add_option("--only", command->only, "Measure a part: accesses or nvme")
      ->check(CLI::IsMember({"all", "accesses", "nvme"}))
      ->type_name("PART")
      ->capture_default_str();
  access
      ->add_option("--rounds", command->rounds,
                   "Batches of each access, and of each floor, in turn")
      ->check(CLI::Range(1, 10000))
      ->type_name("N")
      ->capture_default_str();
  access
      ->add_option("--repetitions", command->repetitions,
                   "Runs of each NVMe server, in turn forwards and backwards")
      ->check(CLI::Range(1, 1000))
      ->type_name("N")
      ->capture_default_str();
  access->add_option("--modes", command->modes, "Doorbell modes of outboard-nvme, or none")
      ->delimiter(',')
      ->check(CLI::IsMember({"page", "shadow", "trap", "none"}))
      ->type_name("LIST")
      ->capture_default_str();
  access
      ->add_option("--idle", command->idle_seconds,
                   "Seconds in which the idle CPU time of outboard-nvme is measured; 0: not")
      ->check(CLI::Range(0.0, 3600.0))
      ->type_name("SECONDS")
      ->capture_default_str();
  CLI::Option* server =
      access
          ->add_option("--nvme-server", command->server,
                       "Command of another NVMe server, compared in pairs with outboard-nvme")
          ->type_name("COMMAND");
  access
      ->add_option("--nvme-socket", command->socket,
                   "Socket of another NVMe server that listens all the time")
      ->type_name("PATH")
      ->excludes(server);
  access->add_option("--label", command->label, "Name of the other server in the table")
      ->type_name("NAME");
  access->add_flag("--shadow", command->shadow, "Give the other server a doorbell buffer");
  CLI::Option* vmm = access
                         ->add_option("--vmm-cpu", command->placement.vmm,
                                      "Host CPU of outboard and of whoever asks")
                         ->type_name("CPU");
  CLI::Option* servers = access
                             ->add_option("--server-cpu", command->placement.server,
                                          "Host CPU of the servers and of whoever answers")
                             ->type_name("CPU");
  vmm->needs(servers);
  servers->needs(vmm);
  access
      ->add_flag("--unpinned", command->unpinned,
                 "Leave the placement to the scheduler, instead of the last CPU and the first")
      ->excludes(vmm);
  access->add_option("--json", command->json, "Write the results there too")->type_name("FILE");
  access->callback([command, &status] {
    std::erase(command->modes, "none");
    status = run(*command);
  });
}

}  // namespace outboard::bench
