#include <cstdio>

#include "vfio_user/client.h"
#include "vmm/commands.h"
#include "vmm/exit_status.h"
#include "vmm/log.h"
#include "vmm/probe_report.h"

namespace outboard::vmm {

int probe_server(const ProbeCommand& command) {
  vfio_user::ClientOptions options;
  const auto limit = command.timeout;
  options.timeouts = {limit, limit, limit, limit, limit, limit};
  auto client = vfio_user::Client::connect(command.socket, options);
  if (!client) {
    log::error("{}", client.error().message);
    return to_int(ExitStatus::device_attach);
  }
  auto device = (*client)->attach({});
  if (!device) {
    log::error("{}", device.error().message);
    return to_int(ExitStatus::device_attach);
  }
  const ProbeReport report{command.socket, (*client)->server(), *device, find_faults(*device)};
  const std::string text = command.json ? to_json(report) : to_text(report);
  std::fputs(text.c_str(), stdout);
  return report.faults.empty() ? to_int(ExitStatus::powered_off)
                               : to_int(ExitStatus::device_attach);
}

}  // namespace outboard::vmm
