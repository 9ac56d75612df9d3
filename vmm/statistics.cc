#include "vmm/statistics.h"

#include <fmt/core.h>

#include "vfio_user/wire.h"

namespace outboard::vmm {
namespace {

template <class Counts>
std::string by_command(const Counts& counts) {
  std::string text;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) continue;
    const char* name = vfio_user::wire::name_of(static_cast<vfio_user::wire::Command>(i));
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", counts[i], name);
  }
  return text.empty() ? "none" : text;
}

}  // namespace

std::string exit_lines(const ExitCounters& exits) {
  return fmt::format(
      "exits: {} port, {} memory, {} interrupted, {} other; {} accesses that no "
      "device answered\n",
      exits.pio, exits.mmio, exits.interrupted, exits.other, exits.unhandled);
}

std::string device_lines(const std::string& name, const vfio_user::Client::Counters& messages,
                         const devices::VfioFunctionCounters& accesses) {
  std::string text;
  text +=
      fmt::format("device '{}': sent {}; {} bytes out, {} bytes in, {} round trips, {} posted\n",
                  name, by_command(messages.sent), messages.bytes_sent, messages.bytes_received,
                  messages.round_trips, messages.posted);
  text += fmt::format("device '{}': served {}; {} timeouts, {} late replies, {} error replies\n",
                      name, by_command(messages.received), messages.timeouts, messages.late_replies,
                      messages.errors);
  text += fmt::format(
      "device '{}': {} BAR reads, {} BAR writes, {} config writes forwarded, {} "
      "failed accesses, {} INTx unmasks\n",
      name, accesses.bar_reads, accesses.bar_writes, accesses.config_forwards,
      accesses.access_errors + accesses.config_errors, accesses.intx_unmasks);
  return text;
}

}  // namespace outboard::vmm
