#include "vmm/pci_device.h"

#include <utility>

#include <fmt/core.h>

#include "vmm/arch.h"
#include "vmm/log.h"

namespace outboard::vmm {
namespace {

log::Level level_of(devices::Severity severity) {
  switch (severity) {
    case devices::Severity::debug:
      return log::Level::debug;
    case devices::Severity::info:
      return log::Level::info;
    case devices::Severity::warning:
      return log::Level::warning;
    case devices::Severity::error:
      break;
  }
  return log::Level::error;
}

std::string bar_kind(const devices::BarInfo& bar) {
  const char* prefetchable = bar.prefetchable ? " prefetchable" : "";
  switch (bar.kind) {
    case devices::BarInfo::Kind::io:
      return "I/O";
    case devices::BarInfo::Kind::memory32:
      return fmt::format("32-bit{}", prefetchable);
    case devices::BarInfo::Kind::memory64:
      return fmt::format("64-bit{}", prefetchable);
    case devices::BarInfo::Kind::rom:
      break;
  }
  return "ROM";
}

devices::VfioFunctionOptions options_of(const DeviceConfig& config, std::uint32_t slot,
                                        const std::function<void(StopReason)>& stop) {
  devices::VfioFunctionOptions options;
  options.name = config.name;
  options.slot = slot;
  options.intx_gsi = arch::intx_gsi(slot);
  options.ids.vendor_id = config.vendor_id;
  options.ids.device_id = config.device_id;
  options.ids.subsystem_vendor_id = config.subsystem_vendor_id;
  options.ids.subsystem_id = config.subsystem_id;
  options.ids.class_code = config.class_code;
  if (config.max_vectors) options.max_vectors = *config.max_vectors;
  for (const auto& [region, map] : config.map) {
    if (region < options.map_region.size()) options.map_region[region] = map;
  }
  options.log = [](devices::Severity severity, const std::string& line) {
    log::write(level_of(severity), line);
  };
  const auto act = [&config, &stop](OnSignal what, std::string_view key, std::string_view event) {
    return
        [what, stop,
         line = fmt::format("device '{}': its server {}; {} = \"stop\"", config.name, event, key)] {
          if (what == OnSignal::stop) stop({ExitStatus::device_lost, 0, line});
        };
  };
  options.on_removal_request = act(config.on_request, "on_request", "asks for its removal");
  options.on_device_error = act(config.on_error, "on_error", "reports an unrecoverable error");
  return options;
}

tl::unexpected<MachineError> refused(const DeviceConfig& config, const devices::Error& error) {
  return failure(ExitStatus::device_attach,
                 fmt::format("device '{}': {}", config.name, error.message));
}

}  // namespace

Result<PciDevice> PciDevice::plug(
    const DeviceConfig& config, std::uint32_t slot, AttachedDevice attached,
    const devices::Machine& services, devices::BarAllocator& allocator, devices::DeviceMarks& marks,
    const GuestMemory& memory, const Reconnector::FindSocket& find_socket, Sandbox* sandbox,
    std::function<void(const DeviceConfig&, const vfio_user::Error&)> lost,
    const std::function<void(StopReason)>& stop) {
  PciDevice device(config, slot);
  auto options = options_of(config, slot, stop);
  options.marks = &marks;
  options.intx_thread_started = [sandbox, &config] {
    enter(sandbox, ThreadKind::intx, config.name);
  };
  options.on_lost = [&config, tell = std::move(lost)](const vfio_user::Error& error) {
    tell(config, error);
  };
  std::shared_ptr<LossSignal> loss;
  if (config.on_disconnect == OnDisconnect::reconnect) {
    loss = std::make_shared<LossSignal>();
    options.hold = config.reconnect.hold;
    options.on_down = [loss] { loss->raise(); };
  }
  auto function =
      devices::VfioFunction::create(std::move(attached.client), std::move(attached.description),
                                    services, std::move(options), std::move(attached.signals));
  if (!function) return refused(config, function.error());
  device.function_ = std::move(*function);
  if (auto placed = device.function_->place_bars(allocator); !placed) {
    return refused(config, placed.error());
  }
  device.marks_ = &marks;
  device.attach_round_trips_ = device.function_->messages().dependent_round_trips;
  if (loss) {
    device.reconnector_ =
        std::make_unique<Reconnector>(Reconnector::Parts{.config = config,
                                                         .function = *device.function_,
                                                         .memory = memory,
                                                         .observer = attached.observer,
                                                         .find_socket = find_socket,
                                                         .sandbox = sandbox},
                                      std::move(loss));
  }
  return device;
}

std::vector<PlacedBar> PciDevice::bars() const {
  std::vector<PlacedBar> bars;
  for (const devices::BarInfo& bar : function_->bars()) {
    bars.push_back({.device = config_->name,
                    .slot = slot_,
                    .bar = bar.region,
                    .address = bar.address,
                    .size = bar.size,
                    .kind = bar_kind(bar)});
  }
  return bars;
}

bool PciDevice::stops_machine() const {
  return config_->on_disconnect == OnDisconnect::stop &&
         function_->link().state == devices::LinkState::failed;
}

DeviceCounters PciDevice::counters() const {
  DeviceCounters counters;
  counters.name = config_->name;
  counters.messages = function_->messages();
  counters.link = function_->link();
  counters.accesses = function_->counters();
  counters.attach_round_trips = attach_round_trips_;
  counters.completion_shared_vector = devices::shares_one_vector(*marks_);
  return counters;
}

}  // namespace outboard::vmm
