#include "tools/bench/contest.h"

#include <cerrno>
#include <cstring>

#include <fmt/core.h>
#include <unistd.h>

#include "tools/bench/pair_order.h"
#include "tools/bench/payload.h"
#include "tools/bench/programs.h"
#include "tools/bench/progress.h"
#include "tools/bench/units.h"

namespace outboard::bench {

Contestant Contest::outboard(const std::string& program, const MachineFile& file) {
  Contestant contestant;
  contestant.side.name = "outboard";
  contestant.side.version = version_in(first_line_of({program, "--version"}));
  contestant.side.device = workload.disks.empty() ? "no device" : "vfio-user";
  contestant.report = folder_.file("report.json");
  const std::string config = folder_.file("machine.toml");
  contestant.side.command = {program, "run", "machine.toml", "--boot-report", "report.json"};
  contestant.command = [this, program, file, config, report = contestant.report](
                           const auto& sockets) -> Result<std::vector<std::string>> {
    if (auto written = write_file(config, file.text(workload, sockets)); !written)
      return tl::unexpected(written.error());
    return std::vector<std::string>{program, "run", config, "--boot-report", report};
  };
  return contestant;
}

Contestant Contest::qemu(const Qemu& qemu, QemuMachine machine) {
  Contestant contestant;
  contestant.side.name = "QEMU " + to_string(machine);
  contestant.side.version = qemu.version;
  contestant.side.device = workload.disks.empty() ? "no device"
                           : qemu.vfio_user       ? "vfio-user-pci"
                                                  : "its own NVMe emulation";
  contestant.servers = qemu.vfio_user;
  const auto kernel = [this] {
    return workload.vmlinux.empty() ? workload.kernel : workload.vmlinux;
  };
  contestant.command = [this, qemu, machine,
                        kernel](const auto& sockets) -> Result<std::vector<std::string>> {
    return qemu_command(qemu, machine, workload, kernel(), sockets);
  };
  contestant.side.command =
      qemu_command(qemu, machine, workload, kernel(),
                   std::vector<std::string>(workload.disks.size(), "disk.sock"));
  return contestant;
}

Contestant Contest::cloud_hypervisor(const std::string& program, const std::string& version) {
  Contestant contestant;
  contestant.side.name = "Cloud Hypervisor";
  contestant.side.version = version;
  contestant.side.device = workload.disks.empty() ? "no device" : "vfio-user";
  contestant.command = [this, program](const auto& sockets) -> Result<std::vector<std::string>> {
    return cloud_hypervisor_command(program, workload, sockets);
  };
  contestant.side.command = cloud_hypervisor_command(
      program, workload, std::vector<std::string>(workload.disks.size(), "disk.sock"));
  return contestant;
}

Result<void> Contest::drop_caches() const {
  if (!options_.drop_caches) return {};
  ::sync();
  if (auto written = write_file("/proc/sys/vm/drop_caches", "3"); !written)
    return fail(ExitStatus::usage,
                fmt::format("--drop-caches: {} (it needs root)", written.error().message));
  return {};
}

Result<Run> Contest::run(const Contestant& contestant) {
  ++number_;
  std::vector<DiskServer> servers;
  std::vector<std::string> sockets;
  for (std::size_t i = 0; contestant.servers && i < workload.disks.size(); ++i) {
    auto server = DiskServer::start(workload.disks[i],
                                    folder_.file(fmt::format("d{}-{}", i, number_)), interrupt_);
    if (!server) return tl::unexpected(server.error());
    sockets.push_back(server->socket());
    servers.push_back(std::move(*server));
  }
  auto argv = contestant.command(sockets);
  if (!argv) return tl::unexpected(argv.error());
  RunPlan one = plan;
  one.argv = std::move(*argv);
  one.report = contestant.report;
  one.server = servers.empty() ? nullptr : &servers.front();
  one.limit = std::chrono::seconds(options_.limit);
  if (auto dropped = drop_caches(); !dropped) return tl::unexpected(dropped.error());
  auto run = run_guest(one, interrupt_);
  for (DiskServer& server : servers) server.stop();
  return run;
}

Result<Run> Contest::run_rival(const Contestant& contestant) {
  auto one = run(contestant);
  for (int again = 0; !one && one.error().late && again < options_.patience; ++again) {
    ++late_;
    one = run(contestant);
  }
  return one;
}

std::string Contest::repeated(const std::string& name) {
  const int late = std::exchange(late_, 0);
  if (late == 0) return {};
  return fmt::format("{} was not done within {} s in {} run{}, which w{} repeated", name,
                     options_.limit, late, late == 1 ? "" : "s", late == 1 ? "as" : "ere");
}

Result<void> Contest::series(Contestant& contestant, std::size_t count,
                             const std::function<Result<void>()>& before) {
  Progress progress(contestant.side.name, count);
  for (std::size_t i = 0; i < count; ++i) {
    if (before) {
      if (auto done = before(); !done) return done;
    }
    auto one = run(contestant);
    if (!one) return tl::unexpected(one.error());
    const auto first = one->at(kFirstRun);
    progress.step(first ? "first KVM_RUN after " + duration_text(*first) : "");
    contestant.side.runs.push_back(std::move(*one));
  }
  return {};
}

Result<void> Contest::pairs(Contestant& ours, Contestant& theirs, std::size_t count) {
  Progress progress(fmt::format("{} and {}", ours.side.name, theirs.side.name), count);
  for (std::size_t pair = 0; pair < count; ++pair) {
    for (std::size_t half = 0; half < 2; ++half) {
      Contestant& next = turn_of(pair, half) == Turn::ours ? ours : theirs;
      auto one = &next == &ours ? run(ours) : run_rival(theirs);
      if (!one) return tl::unexpected(one.error());
      next.side.runs.push_back(std::move(*one));
    }
    progress.step("");
  }
  return {};
}

Result<void> Contest::memory(Contestant& contestant) {
  constexpr std::size_t kRuns = 3;
  const RunPlan timed = plan;
  const std::string words = workload.command_line;
  plan.until = Until::first_byte;
  plan.read_memory = true;
  workload.command_line = kPayloadHolds;
  Result<void> done;
  for (std::size_t i = 0; i < kRuns && done; ++i) {
    auto one = run(contestant);
    if (!one) {
      done = tl::unexpected(one.error());
    } else if (i < contestant.side.runs.size()) {
      contestant.side.runs[i].memory = one->memory;
    }
  }
  // The other runs measured it from the inside, if at all: only one way counts.
  for (std::size_t i = kRuns; i < contestant.side.runs.size(); ++i)
    contestant.side.runs[i].memory.reset();
  plan = timed;
  workload.command_line = words;
  return done;
}

Result<Qemu> probe_qemu(const std::string& given) {
  auto path = find_program("qemu-system-x86_64", given, "--qemu");
  if (!path) return tl::unexpected(path.error());
  Qemu qemu;
  qemu.path = *path;
  const std::string line = first_line_of({*path, "--version"});
  if (line.starts_with("QEMU emulator version")) qemu.version = version_in(line);
  if (qemu.version.empty())
    return fail(ExitStatus::missing,
                fmt::format("{} is no QEMU that runs here; asked for its version it says '{}'",
                            *path, line));
  // Modules of another build in its folders make it list nothing.
  const std::string devices = output_of({*path, "-device", "help"});
  if (devices.find("name \"") == std::string::npos)
    return fail(ExitStatus::missing, fmt::format("{} lists no devices; asked for them it says '{}'",
                                                 *path, devices.substr(0, devices.find('\n'))));
  qemu.vfio_user = devices.find("\"vfio-user-pci\"") != std::string::npos;
  return qemu;
}

}  // namespace outboard::bench
