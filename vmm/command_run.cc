#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "vmm/box/breach.h"
#include "vmm/box/process.h"
#include "vmm/commands.h"
#include "vmm/console.h"
#include "vmm/event_loop.h"
#include "vmm/given_files.h"
#include "vmm/log.h"
#include "vmm/machine.h"
#include "vmm/run_files.h"
#include "vmm/sandbox.h"
#include "vmm/server_launcher.h"

namespace outboard::vmm {
namespace {

int explain(ExitStatus status, const std::string& message) {
  log::error("{}", message);
  return to_int(status);
}

}  // namespace

std::optional<MachineConfig> load_or_explain(const ConfigSource& source) {
  auto config = load_config(source.file, source.overrides);
  if (!config) {
    for (const std::string& line : config.error().lines) log::error("{}", line);
    return std::nullopt;
  }
  config->command_line += source.append;
  if (config->command_line.starts_with(' ')) config->command_line.erase(0, 1);
  return std::move(*config);
}

namespace {

RunEnd failed(ExitStatus status, std::string message) {
  log::error("{}", message);
  return {.exit_status = to_int(status), .message = std::move(message)};
}

// The whole process first, then its threads one by one. Servers have been started, and are outside.
Result<std::unique_ptr<Sandbox>> make_sandbox(const MachineConfig& config, const RunFiles& files) {
  if (const unsigned closed = box::close_inherited(); closed != 0) {
    log::debug("sandbox: {} inherited descriptors closed", closed);
  }
  box::forbid_core_dumps();
  box::watch_for_breaches({.program = "outboard",
                           .exit_status = to_int(ExitStatus::sandbox),
                           .restore = restore_terminal});
  std::vector<std::string> folders = files.folders();
  const bool leaves_name =
      config.console.type == ConsoleType::socket || config.console.type == ConsoleType::pty;
  if (leaves_name && !config.console.path.empty())
    folders.push_back(folder_of(config.console.path));
  return Sandbox::create(config, std::move(folders));
}

RunEnd run_guest(const MachineConfig& config, Marks& marks, RunFiles& files, bool sandboxed) {
  auto console = ConsoleBackend::open(config.console);
  if (!console) return failed(ExitStatus::configuration, console.error().message);
  if (const std::string where = (*console)->description(); !where.empty()) log::info("{}", where);

  // Started before any thread exists; they come up while KVM, memory and kernel are made ready.
  // Each by a process of its own outside of the sandbox, which ends it and removes its socket.
  std::map<std::string, std::unique_ptr<ServerLauncher>> launchers;
  for (const DeviceConfig& device : config.devices) {
    if (device.server.empty()) continue;
    auto launcher = ServerLauncher::start(device.name, device.server, device.server_affinity);
    if (!launcher) return failed(ExitStatus::device_attach, launcher.error().message);
    launchers.emplace(device.name, std::move(*launcher));
  }
  const auto await_socket =
      [&launchers](const DeviceConfig& device) -> vfio_user::Result<std::string> {
    const auto launcher = launchers.find(device.name);
    if (launcher == launchers.end()) return device.socket;
    return launcher->second->wait_until_listening(device.timeouts.connect);
  };

  const auto revive_socket = [&launchers](const DeviceConfig& device, bool insist,
                                          int cancel_fd) -> vfio_user::Result<std::string> {
    const auto launcher = launchers.find(device.name);
    if (launcher == launchers.end()) return device.socket;
    return launcher->second->revive(insist, device.timeouts.connect, cancel_fd);
  };

  std::unique_ptr<Sandbox> sandbox;
  if (sandboxed) {
    auto made = make_sandbox(config, files);
    if (!made) return failed(made.error().status, made.error().message);
    sandbox = std::move(*made);
  }

  auto loop = EventLoop::create();
  if (!loop) return failed(ExitStatus::internal_error, loop.error().message);

  auto machine = Machine::create(config, MachineParts{.loop = **loop,
                                                      .console = **console,
                                                      .marks = marks,
                                                      .await_socket = await_socket,
                                                      .revive_socket = revive_socket,
                                                      .trace = files.trace(),
                                                      .started = [&] { files.guest_started(); },
                                                      .sandbox = sandbox.get()});
  if (!machine) return failed(machine.error().status, machine.error().message);

  const ExitReason reason = (*machine)->run();
  (*console)->stop();
  (*console)->flush(std::chrono::milliseconds(1000));
  if (!reason.message.empty()) {
    if (reason.status == ExitStatus::powered_off)
      log::info("{}", reason.message);
    else
      log::error("{}", reason.message);
  }
  if (config.statistics) std::fputs((*machine)->statistics().c_str(), stderr);
  RunEnd end{.exit_status = reason.exit_code(),
             .message = reason.message,
             .counters = (*machine)->counters(),
             .at_end = files.memory()};
  if (sandbox) end.sandbox = sandbox->report();
  machine->reset();  // the devices let go of their servers before these are stopped
  return end;
}

}  // namespace

int run_machine(const RunCommand& command, Marks& marks) {
  auto files = RunFiles::create(command.boot_report, command.trace);
  if (!files) return explain(files.error().status, files.error().message);
  auto config = load_or_explain(command.config);
  if (!config) return to_int(ExitStatus::configuration);
  if (auto resolved = resolve_given_fds(*config, vfio_user::GivenFds::from_environment());
      !resolved) {
    return explain(resolved.error().status, resolved.error().message);
  }
  config->statistics = command.statistics;
  marks.stamp(Mark::configuration_read);

  RunEnd end = run_guest(*config, marks, *files, command.sandbox);
  const int status = end.exit_status;
  if (auto written = files->write(*config, marks, std::move(end)); !written) {
    const int unwritten = explain(written.error().status, written.error().message);
    return status != 0 ? status : unwritten;
  }
  return status;
}

}  // namespace outboard::vmm
