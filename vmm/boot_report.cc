#include "vmm/boot_report.h"

#include <array>
#include <cstdint>
#include <numeric>

#include <nlohmann/json.hpp>

#include "vfio_user/wire.h"
#include "vmm/exit_status.h"

namespace outboard::vmm {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kSchema = 1;

std::string_view page_size_text(PageSize size) {
  switch (size) {
    case PageSize::k4:
      return "4K";
    case PageSize::m2:
      return "2M";
    case PageSize::g1:
      break;
  }
  return "1G";
}

Json machine_json(const MachineConfig& config, const HostFacts& host) {
  return {{"vcpus", config.vcpus},
          {"memory_bytes", config.memory},
          {"page_size", page_size_text(config.page_size)},
          {"kernel", config.kernel},
          {"cpu_model", host.cpu_model},
          {"host_kernel", host.kernel},
          {"kvm", host.hardware_kvm ? "hardware" : "software"}};
}

Json clock_json(const Marks& marks) {
  const auto start = marks.at(Mark::process_start);
  const bool parent = start != marks.at(Mark::program_loaded);
  return {{"start_monotonic_ns", start.value_or(0)},
          {"started_by", parent ? "parent" : "constructor"}};
}

Json marks_json(const Marks& marks) {
  const std::uint64_t start = marks.at(Mark::process_start).value_or(0);
  Json all = Json::array();
  for (const Stamp& stamp : marks.list()) {
    Json one;
    if (!stamp.device.empty()) one["device"] = stamp.device;
    one["key"] = stamp.key;
    one["name"] = stamp.name;
    one["ns"] = static_cast<std::int64_t>(stamp.at - start);
    all.push_back(std::move(one));
  }
  return all;
}

Json exits_json(const ExitCounters& exits) {
  Json all;
  for (std::size_t i = 0; i < kExitKinds; ++i) {
    all[std::string(key_of(static_cast<ExitKind>(i)))] = exits.by_kind[i];
  }
  return all;
}

Json messages_json(const vfio_user::ClientCounters& messages) {
  using vfio_user::wire::Command;
  Json all = Json::object();
  for (std::size_t i = 0; i < messages.sent.size(); ++i) {
    const auto command = static_cast<Command>(i);
    const std::uint64_t posted = command == Command::region_write ? messages.posted_alone : 0;
    const std::uint64_t sent = messages.sent[i] + posted;
    if (sent + messages.received[i] == 0) continue;
    all[vfio_user::wire::name_of(command)] = {{"sent", sent},
                                              {"received", messages.received[i]},
                                              {"bytes_out", messages.bytes_out[i]},
                                              {"bytes_in", messages.bytes_in[i]}};
  }
  return all;
}

std::uint64_t sum(const auto& figures) {
  return std::accumulate(figures.begin(), figures.end(), std::uint64_t{0});
}

Json spread_json(const devices::Spread& spread) {
  return {{"count", spread.count},
          {"p50_us", spread.p50.count()},
          {"p99_us", spread.p99.count()},
          {"worst_us", spread.worst.count()}};
}

Json link_json(const devices::LinkCounters& link) {
  return {{"state", devices::name_of(link.state)},
          {"losses", link.losses},
          {"attempts", link.attempts},
          {"resumes", link.resumes},
          {"resets", link.resets},
          {"slow_spells", link.slow_spells},
          {"unserved_accesses", link.unserved},
          {"repeated_accesses", link.repeated},
          {"recovery", spread_json(link.recovery)},
          {"stall", spread_json(link.stall)}};
}

Json device_json(const DeviceCounters& device) {
  const vfio_user::ClientCounters& messages = device.messages;
  const devices::VfioFunctionCounters& accesses = device.accesses;
  return {{"name", device.name},
          {"messages", messages_json(messages)},
          {"round_trips", messages.round_trips},
          {"attach_round_trips", device.attach_round_trips},
          {"bytes_out", sum(messages.bytes_out)},
          {"bytes_in", sum(messages.bytes_in)},
          {"posted_writes", messages.posted},
          {"timeouts", messages.timeouts},
          {"late_replies", messages.late_replies},
          {"error_replies", messages.errors},
          {"bar_reads", accesses.bar_reads},
          {"bar_writes", accesses.bar_writes},
          {"config_writes_forwarded", accesses.config_forwards},
          {"failed_accesses", accesses.access_errors + accesses.config_errors},
          {"intx_unmasks", accesses.intx_unmasks},
          {"device_errors", accesses.device_errors},
          {"removal_requests", accesses.removal_requests},
          {"link", link_json(device.link)},
          {"completion_shared_vector", device.completion_shared_vector}};
}

Json memory_json(const std::optional<MemoryUse>& use) {
  if (!use) return nullptr;
  return {{"anon_bytes", use->anonymous}, {"file_bytes", use->file}, {"shmem_bytes", use->shared}};
}

Json sandbox_json(const std::optional<box::Report>& sandbox) {
  if (!sandbox) return nullptr;
  Json calls = Json::object();
  for (const box::Report::Kind& kind : sandbox->kinds) calls[kind.name] = kind.calls;
  return {{"system_calls", std::move(calls)},
          {"landlock", sandbox->landlock},
          {"sanitizer", sandbox->sanitizer}};
}

}  // namespace

std::string_view stop_reason(int exit_status, const Marks& marks) {
  if (exit_status > to_int(ExitStatus::signal_base)) return "signal";
  switch (static_cast<ExitStatus>(exit_status)) {
    case ExitStatus::powered_off:  // or a reboot that ends the machine, or the keyboard
      return marks.at(Mark::power_off) ? "power-off" : "ended";
    case ExitStatus::usage:
      return "usage";
    case ExitStatus::configuration:
      return "configuration";
    case ExitStatus::boot_image:
      return "boot-image";
    case ExitStatus::no_kvm:
      return "no-kvm";
    case ExitStatus::memory:
      return "memory";
    case ExitStatus::device_attach:
      return "device-attach";
    case ExitStatus::device_lost:
      return "device-lost";
    case ExitStatus::triple_fault:
      return "triple-fault";
    case ExitStatus::vcpu_failure:
      return "vcpu-failure";
    case ExitStatus::deadline:
      return "deadline";
    case ExitStatus::sandbox:  // no report is written then
      return "sandbox";
    case ExitStatus::internal_error:
    case ExitStatus::signal_base:
      break;
  }
  return "internal-error";
}

std::string to_json(const BootReport& report) {
  Json root;
  root["schema"] = kSchema;
  root["outboard"] = OUTBOARD_VERSION;
  root["exit_status"] = report.exit_status;
  root["stop_reason"] = stop_reason(report.exit_status, report.marks);
  root["message"] = report.message;
  root["clock"] = clock_json(report.marks);
  root["machine"] = machine_json(report.config, report.host);
  root["marks"] = marks_json(report.marks);

  ExitCounters all;
  Json vcpus = Json::array();
  for (const ExitCounters& exits : report.counters.vcpus) {
    all += exits;
    vcpus.push_back({{"index", vcpus.size()},
                     {"exits", exits_json(exits)},
                     {"unanswered_accesses", exits.unanswered}});
  }
  root["exits"] = exits_json(all);
  root["vcpus"] = std::move(vcpus);
  Json devices = Json::array();
  for (const DeviceCounters& device : report.counters.devices) {
    devices.push_back(device_json(device));
  }
  root["devices"] = std::move(devices);
  root["interrupt_route_pushes"] = report.counters.route_pushes;
  root["reboots"] = report.counters.reboots;
  root["rss"] = memory_json(report.at_end);
  if (report.at_end) root["rss"]["at_first_run"] = memory_json(report.at_first_run);
  root["sandbox"] = sandbox_json(report.sandbox);
  return root.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace outboard::vmm
