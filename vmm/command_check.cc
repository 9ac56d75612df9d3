#include <cstdio>
#include <string>

#include <fmt/core.h>

#include "vmm/arch.h"
#include "vmm/commands.h"
#include "vmm/dma_plan.h"
#include "vmm/given_files.h"
#include "vmm/kvm.h"
#include "vmm/log.h"
#include "vmm/server_user.h"
#include "vmm/units.h"

namespace outboard::vmm {
namespace {

// Printed without a host to ask: the least width that current processors have.
constexpr unsigned kAssumedAddressBits = 39;

std::string_view kind_name(boot::MemoryRange::Kind kind) {
  switch (kind) {
    case boot::MemoryRange::Kind::ram:
      return "RAM";
    case boot::MemoryRange::Kind::reserved:
      return "reserved";
    case boot::MemoryRange::Kind::acpi:
      return "ACPI";
  }
  return "?";
}

std::string words(const std::vector<std::string>& argv) {
  std::string out;
  for (const std::string& word : argv) out += (out.empty() ? "" : " ") + word;
  return out;
}

std::string cpu_list(const std::vector<int>& cpus) {
  std::string out;
  for (const int cpu : cpus) out += fmt::format("{}{}", out.empty() ? "" : ",", cpu);
  return out.empty() ? "any host CPU" : "host CPU " + out;
}

std::string_view prefault_name(Prefault prefault) {
  switch (prefault) {
    case Prefault::off:
      return "off";
    case Prefault::automatic:
      return "auto";
    case Prefault::all:
      return "all";
  }
  return "?";
}

std::string_view console_name(ConsoleType type) {
  switch (type) {
    case ConsoleType::stdio:
      return "standard input and output";
    case ConsoleType::file:
      return "file";
    case ConsoleType::pty:
      return "pseudo-terminal";
    case ConsoleType::socket:
      return "socket";
    case ConsoleType::none:
      return "none";
  }
  return "?";
}

void print_memory(const MachineConfig& config, const arch::MemoryLayout& layout) {
  std::string out = fmt::format(
      "Memory: {} in pages of {}, prefault {}\n", format_size(config.memory),
      format_size(static_cast<std::uint64_t>(config.page_size)), prefault_name(config.prefault));
  if (!config.memory_fd.empty())
    out += fmt::format("  in {}, made by another process\n", config.memory_fd);
  for (const boot::MemoryRange& range : layout.map)
    out += fmt::format("  {:#014x} - {:#014x}  {}\n", range.base, range.base + range.size - 1,
                       kind_name(range.kind));
  for (const RamWindow& window : layout.ram)
    out += fmt::format("  RAM at {:#x} +{:#x}, file offset {:#x}\n", window.address, window.size,
                       window.file_offset);
  out += fmt::format("  PCI windows {:#x} +{:#x}, {:#x} +{:#x}, ports {:#x} +{:#x}; ECAM {:#x}\n",
                     layout.mmio32.base, layout.mmio32.size, layout.mmio64.base, layout.mmio64.size,
                     layout.pio.base, layout.pio.size, layout.ecam_base);
  std::fputs(out.c_str(), stdout);
}

std::string disconnect_text(const DeviceConfig& device) {
  switch (device.on_disconnect) {
    case OnDisconnect::stop:
      return "stop";
    case OnDisconnect::detach:
      return "detach";
    case OnDisconnect::reconnect:
      break;
  }
  const ReconnectConfig& policy = device.reconnect;
  return fmt::format("reconnect (hold {}, deadline {}, every {} to {}, then {})",
                     format_duration(policy.hold), format_duration(policy.deadline),
                     format_duration(policy.first_delay), format_duration(policy.last_delay),
                     policy.give_up == OnGiveUp::stop ? "stop" : "detach");
}

std::string socket_text(const DeviceConfig& device) {
  std::string text = "socket " + device.socket;
  if (is_connected_socket(device)) text += ", connected at start: it cannot be reconnected";
  return text;
}

void print_devices(const MachineConfig& config, const arch::MemoryLayout& layout) {
  const std::vector<FilePlan> files =
      plan_files(layout.ram, config.devices, config.memory_fd.empty());
  for (std::size_t i = 0; i < config.devices.size(); ++i) {
    const DeviceConfig& device = config.devices[i];
    const auto slot = static_cast<std::uint32_t>(i + 1);
    std::string out = fmt::format(
        "Device {}: 00:{:02x}.0, {}\n", device.name, slot,
        device.server.empty()
            ? socket_text(device)
            : "server " + words(device.server) + " (" + cpu_list(device.server_affinity) + ")");
    out += fmt::format("  its server has to be of {}\n", server_user_text(device.server_user));
    if (const auto gsi = arch::intx_gsi(slot))
      out += fmt::format("  INTA is GSI {}\n", *gsi);
    else
      out += "  no interrupt pin (MSI only): slots 1 to 8 have one\n";
    const auto& limits = device.timeouts;
    out +=
        fmt::format("  time-outs: connect {}, version {}, setup {}, access {}, dma {}, reset {}\n",
                    format_duration(limits.connect), format_duration(limits.version),
                    format_duration(limits.setup), format_duration(limits.access),
                    format_duration(limits.dma), format_duration(limits.reset));
    out += fmt::format("  polls for replies: {}; posted writes {}; when the server is lost: {}\n",
                       device.poll_replies ? "yes" : "no",
                       device.posted_writes ? "where the order permits" : "off",
                       disconnect_text(device));
    out +=
        fmt::format("  DMA windows: {}\n", dma_text(plan_windows(layout.ram, files, device.dma)));
    out += fmt::format("  on an error of the server: {}; on its request for removal: {}\n",
                       device.on_error == OnSignal::stop ? "stop" : "log",
                       device.on_request == OnSignal::stop ? "stop" : "log");
    std::fputs(out.c_str(), stdout);
  }
}

}  // namespace

tl::expected<arch::MemoryLayout, ExitStatus> layout_or_explain(const MachineConfig& config) {
  unsigned bits = kAssumedAddressBits;
  if (const auto kvm = Kvm::open()) {
    if (const auto cpu = arch::HostCpu::ask(*kvm)) bits = (*cpu)->physical_address_bits();
  } else {
    log::warning("{}; {} address bits are assumed", kvm.error().message, bits);
  }
  auto layout = arch::memory_layout(config.memory, bits);
  if (!layout) {
    log::error("{}", layout.error().message);
    return tl::unexpected(layout.error().status);
  }
  return std::move(*layout);
}

int check_config(const CheckCommand& command) {
  if (command.schema) {
    std::fputs(schema().c_str(), stdout);
    return to_int(ExitStatus::powered_off);
  }
  const auto config = load_or_explain(command.config);
  if (!config) return to_int(ExitStatus::configuration);

  if (const auto known = arch::check(*config); !known) {
    log::error("{}", known.error().message);
    return to_int(known.error().status);
  }
  const auto layout = layout_or_explain(*config);
  if (!layout) return to_int(layout.error());

  for (const auto& [what, path] :
       {std::pair{"kernel", config->kernel}, std::pair{"initrd", config->initrd}}) {
    if (path.empty() || vfio_user::is_given_fd(path)) continue;  // seen at the start only
    if (std::FILE* file = std::fopen(path.c_str(), "rbe"); file != nullptr) {
      std::fclose(file);
    } else {
      log::error("{} {}: cannot be read; name an existing file", what, path);
      return to_int(ExitStatus::boot_image);
    }
  }

  std::string out = fmt::format("vCPUs: {}\n", config->vcpus);
  for (std::size_t i = 0; i < config->vcpu_affinity.size(); ++i)
    out += fmt::format("  vCPU {}: {}\n", i, cpu_list(config->vcpu_affinity[i]));
  std::fputs(out.c_str(), stdout);
  print_memory(*config, *layout);
  out = fmt::format("KVM: {}\nKernel: {}\n", config->kvm, config->kernel);
  if (!config->initrd.empty()) out += fmt::format("Initrd: {}\n", config->initrd);
  out += fmt::format("Command line: {}\n", config->command_line);
  out += fmt::format("Console: {}{}\n", console_name(config->console.type),
                     config->console.path.empty() ? "" : " " + config->console.path);
  std::fputs(out.c_str(), stdout);
  print_devices(*config, *layout);
  if (config->page_size == PageSize::k4 && !config->devices.empty())
    std::fputs("Note: SPDK with real NVMe drives needs page_size = \"2M\".\n", stdout);
  return to_int(ExitStatus::powered_off);
}

}  // namespace outboard::vmm
