#include "vmm/statistics.h"

#include <fmt/core.h>

#include "vfio_user/wire.h"

namespace outboard::vmm {
namespace {

using Counts = std::array<std::uint64_t, vfio_user::wire::kCommandLimit>;

// "3 DMA_MAP (144 B out, 48 B in), …" of the commands that were counted.
std::string by_command(const Counts& counts, const vfio_user::ClientCounters& messages) {
  std::string text;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) continue;
    const char* name = vfio_user::wire::name_of(static_cast<vfio_user::wire::Command>(i));
    text += fmt::format("{}{} {} ({} B out, {} B in)", text.empty() ? "" : ", ", counts[i], name,
                        messages.bytes_out[i], messages.bytes_in[i]);
  }
  return text.empty() ? "none" : text;
}

std::string exit_line(const ExitCounters& exits) {
  const std::uint64_t other = exits.of(ExitKind::pages_gone) + exits.of(ExitKind::system_event) +
                              exits.of(ExitKind::shutdown) + exits.of(ExitKind::failure);
  return fmt::format(
      "{} port, {} memory, {} interrupted, {} other; {} accesses that no device answered\n",
      exits.of(ExitKind::port), exits.of(ExitKind::memory), exits.of(ExitKind::interrupted), other,
      exits.unanswered);
}

std::string exit_lines(const std::vector<ExitCounters>& vcpus) {
  ExitCounters sum;
  for (const ExitCounters& one : vcpus) sum += one;
  std::string text = "exits: " + exit_line(sum);
  if (vcpus.size() < 2) return text;
  for (std::size_t i = 0; i < vcpus.size(); ++i) {
    text += fmt::format("exits of vCPU {}: {}", i, exit_line(vcpus[i]));
  }
  return text;
}

std::string spread_text(const devices::Spread& spread) {
  const auto milliseconds = [](std::chrono::microseconds time) {
    return static_cast<double>(time.count()) / 1000;
  };
  return fmt::format("p50 {:.1f} ms, p99 {:.1f} ms, worst {:.1f} ms", milliseconds(spread.p50),
                     milliseconds(spread.p99), milliseconds(spread.worst));
}

// Of the connection to the server: its state, and what it has been through.
std::string link_text(const devices::LinkCounters& link) {
  std::string text = fmt::format("server {}", devices::name_of(link.state));
  if (link.slow_spells != 0) text += fmt::format(", slow {} times", link.slow_spells);
  if (link.losses != 0) {
    text += fmt::format(
        ", lost {} times, back {} times ({} resumed, {} reset) in {} attempts; {} accesses sent "
        "again, {} not served",
        link.losses, link.resumes + link.resets, link.resumes, link.resets, link.attempts,
        link.repeated, link.unserved);
  }
  if (link.recovery.count != 0) text += "; back after " + spread_text(link.recovery);
  if (link.stall.count != 0) {
    text += fmt::format("; {} accesses waited {}", link.stall.count, spread_text(link.stall));
  }
  return text + "\n";
}

std::string device_lines(const DeviceCounters& device) {
  const vfio_user::ClientCounters& messages = device.messages;
  const devices::VfioFunctionCounters& accesses = device.accesses;
  const std::string begin = fmt::format("device '{}': ", device.name);
  // A posted write that was a message of its own is a REGION_WRITE like the others.
  Counts sent = messages.sent;
  sent[static_cast<std::size_t>(vfio_user::wire::Command::region_write)] += messages.posted_alone;
  std::string text;
  text += fmt::format("{}sent {}; {} bytes out, {} bytes in, {} round trips, {} posted\n", begin,
                      by_command(sent, messages), messages.bytes_sent, messages.bytes_received,
                      messages.round_trips, messages.posted);
  text += fmt::format("{}served {}; {} timeouts, {} late replies, {} error replies\n", begin,
                      by_command(messages.received, messages), messages.timeouts,
                      messages.late_replies, messages.errors);
  text += fmt::format(
      "{}{} BAR reads, {} BAR writes, {} config writes forwarded, {} failed accesses, {} INTx "
      "unmasks\n",
      begin, accesses.bar_reads, accesses.bar_writes, accesses.config_forwards,
      accesses.access_errors + accesses.config_errors, accesses.intx_unmasks);
  text += begin + link_text(device.link);
  text += fmt::format("{}attached in {} dependent round trips\n", begin, device.attach_round_trips);
  if (device.completion_shared_vector) {
    text += begin + "one vector serves its admin and I/O queues\n";
  }
  if (accesses.device_errors + accesses.removal_requests != 0) {
    text += fmt::format("{}its server signalled {} errors and {} removal requests\n", begin,
                        accesses.device_errors, accesses.removal_requests);
  }
  if (accesses.lines_suppressed != 0) {
    text += fmt::format("{}{} log lines left out\n", begin, accesses.lines_suppressed);
  }
  return text;
}

}  // namespace

std::string statistics_text(const Marks& marks, const MachineCounters& counters,
                            const std::optional<MemoryUse>& memory,
                            const std::optional<box::Report>& sandbox) {
  std::string text = marks.report();
  if (!counters.vcpus.empty()) text += exit_lines(counters.vcpus);
  text += fmt::format("interrupt routes: sent to KVM {} times; {} reboots\n", counters.route_pushes,
                      counters.reboots);
  if (counters.console_lost != 0) {
    text += fmt::format("console: {} bytes of output lost\n", counters.console_lost);
  }
  for (const DeviceCounters& device : counters.devices) text += device_lines(device);
  if (memory) {
    text += fmt::format("memory: {} KiB anonymous, {} KiB of files, {} KiB shared\n",
                        memory->anonymous / 1024, memory->file / 1024, memory->shared / 1024);
  }
  text += fmt::format("sandbox: {}\n", sandbox ? box::to_string(*sandbox) : std::string("off"));
  return text;
}

}  // namespace outboard::vmm
