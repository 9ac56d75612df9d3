#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "vmm/commands.h"
#include "vmm/console.h"
#include "vmm/event_loop.h"
#include "vmm/given_files.h"
#include "vmm/log.h"
#include "vmm/machine.h"
#include "vmm/memory_use.h"
#include "vmm/run_files.h"
#include "vmm/server_launcher.h"
#include "vmm/server_process.h"

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

RunEnd run_guest(const MachineConfig& config, Marks& marks, RunFiles& files) {
  auto console = ConsoleBackend::open(config.console);
  if (!console) return failed(ExitStatus::configuration, console.error().message);
  if (const std::string where = (*console)->description(); !where.empty()) log::info("{}", where);

  // Started before any thread exists; they come up while KVM, memory and kernel are made ready.
  std::map<std::string, std::unique_ptr<ServerProcess>> servers;
  std::map<std::string, std::unique_ptr<ServerLauncher>> launchers;  // of those that may come back
  for (const DeviceConfig& device : config.devices) {
    if (device.server.empty()) continue;
    if (device.on_disconnect == OnDisconnect::reconnect) {
      auto launcher = ServerLauncher::start(device.name, device.server, device.server_affinity);
      if (!launcher) return failed(ExitStatus::device_attach, launcher.error().message);
      launchers.emplace(device.name, std::move(*launcher));
      continue;
    }
    auto server = ServerProcess::start(device.name, device.server, device.server_affinity);
    if (!server) return failed(ExitStatus::device_attach, server.error().message);
    servers.emplace(device.name, std::move(*server));
  }
  const auto await_socket =
      [&servers, &launchers](const DeviceConfig& device) -> vfio_user::Result<std::string> {
    if (const auto launcher = launchers.find(device.name); launcher != launchers.end())
      return launcher->second->wait_until_listening(device.timeouts.connect);
    const auto found = servers.find(device.name);
    if (found == servers.end()) return device.socket;
    if (auto listening = found->second->wait_until_listening(device.timeouts.connect); !listening)
      return tl::unexpected(listening.error());
    return found->second->socket_path();
  };

  const auto revive_socket = [&launchers](const DeviceConfig& device, bool insist,
                                          int cancel_fd) -> vfio_user::Result<std::string> {
    const auto launcher = launchers.find(device.name);
    if (launcher == launchers.end()) return device.socket;
    return launcher->second->revive(insist, device.timeouts.connect, cancel_fd);
  };

  auto loop = EventLoop::create();
  if (!loop) return failed(ExitStatus::internal_error, loop.error().message);

  auto machine = Machine::create(config, MachineParts{.loop = **loop,
                                                      .console = **console,
                                                      .marks = marks,
                                                      .await_socket = await_socket,
                                                      .revive_socket = revive_socket,
                                                      .trace = files.trace(),
                                                      .started = [&] { files.guest_started(); }});
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
             .at_end = files.wants_report() ? memory_use() : std::nullopt};
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

  RunEnd end = run_guest(*config, marks, *files);
  const int status = end.exit_status;
  if (auto written = files->write(*config, marks, std::move(end)); !written) {
    const int unwritten = explain(written.error().status, written.error().message);
    return status != 0 ? status : unwritten;
  }
  return status;
}

}  // namespace outboard::vmm
