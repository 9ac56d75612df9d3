#include "vmm/machine.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <thread>
#include <utility>

#include <fmt/core.h>

#include "devices/bar_allocator.h"
#include "devices/pci_host.h"
#include "devices/power.h"
#include "devices/uart.h"
#include "devices/vfio_function.h"
#include "vmm/board.h"
#include "vmm/console.h"
#include "vmm/device_attach.h"
#include "vmm/event_loop.h"
#include "vmm/guest_image.h"
#include "vmm/log.h"
#include "vmm/machine_events.h"
#include "vmm/marks.h"
#include "vmm/statistics.h"
#include "vmm/vcpu_set.h"

namespace outboard::vmm {
namespace {

using devices::PowerEvent;

// The console as the UART sees it: the first byte is worth a mark.
class MarkedOutput final : public devices::ConsoleOutput {
 public:
  MarkedOutput(devices::ConsoleOutput& output, Marks& marks) : output_(output), marks_(marks) {}
  std::size_t write(std::span<const std::byte> data) override {
    marks_.stamp(Mark::first_console_byte);
    return output_.write(data);
  }

 private:
  devices::ConsoleOutput& output_;
  Marks& marks_;
};

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

// A PCI function and the connection it stands for; the function goes first.
struct Device {
  const DeviceConfig* config = nullptr;
  std::uint32_t slot = 0;
  std::unique_ptr<vfio_user::Client> client;
  std::unique_ptr<devices::VfioFunction> function;
};

class MachineImpl final : public Machine {
 public:
  MachineImpl(const MachineConfig& config, const MachineParts& parts)
      : config_(config),
        loop_(parts.loop),
        console_(parts.console),
        marks_(parts.marks),
        await_socket_(parts.await_socket),
        events_(parts.loop),
        output_(parts.console, parts.marks) {}
  ~MachineImpl() override;

  Result<void> set_up();

  ExitReason run() override;
  void press_power_button() override;
  void request_stop(StopReason reason) override { events_.stop(std::move(reason)); }
  std::vector<PlacedBar> placed_bars() const override;
  std::string statistics() const override;

 private:
  Result<void> watch_signals();
  Result<void> wait_for_devices(DeviceAttach& attach, const std::atomic<bool>& populated);
  Result<void> plug_fixed_devices();
  Result<void> plug(std::vector<AttachedDevice> attached);
  Result<void> plug_one(AttachedDevice attached, std::size_t index,
                        devices::BarAllocator& allocator);
  Result<void> load_guest();
  void on_signal(int signal);
  void on_power(PowerEvent event);
  void on_command(ConsoleCommand command);
  void on_lost(const DeviceConfig& device, const vfio_user::Error& error);
  void press_on_main();
  std::optional<ExitReason> handle_events();
  ExitReason vcpu_failed(const VcpuEvent& event);
  std::optional<ExitReason> restart();
  void shut_down();
  arch::FirmwareDescription firmware() const;

  const MachineConfig config_;
  EventLoop& loop_;
  ConsoleBackend& console_;
  Marks& marks_;
  const std::function<vfio_user::Result<std::string>(const DeviceConfig&)> await_socket_;
  MachineEvents events_;
  std::optional<devices::WatchId> signals_;
  std::optional<devices::WatchId> power_deadline_;  // main thread
  bool running_ = false;                            // main thread: the guest has been started
  std::uint64_t restarts_ = 0;                      // main thread

  // Destroyed from the bottom up: vCPUs, devices, bridge, board.
  std::optional<GuestImage> image_;
  std::unique_ptr<Board> board_;
  MarkedOutput output_;
  std::unique_ptr<GsiLine> uart_line_;
  std::unique_ptr<GsiLine> power_line_;
  std::unique_ptr<devices::Uart16550> uart_;
  std::unique_ptr<devices::PowerBlock> power_;
  std::unique_ptr<devices::PowerButton> button_;
  devices::PciHost pci_;
  std::vector<Device> devices_;
  std::unique_ptr<VcpuSet> vcpus_;
};

MachineImpl::~MachineImpl() {
  shut_down();
  if (power_deadline_) loop_.unwatch(*power_deadline_);
  if (signals_) loop_.unwatch(*signals_);
}

Result<void> MachineImpl::watch_signals() {
  auto watch = loop_.watch_signals({SIGINT, SIGTERM, SIGHUP, SIGUSR1},
                                   [this](int signal) { on_signal(signal); });
  if (!watch) return tl::unexpected(watch.error());
  signals_ = *watch;
  return {};
}

arch::FirmwareDescription MachineImpl::firmware() const {
  return {.vcpus = config_.vcpus, .devices = static_cast<std::uint32_t>(config_.devices.size())};
}

Result<void> MachineImpl::set_up() {
  if (auto watched = watch_signals(); !watched) return watched;
  if (config_.devices.size() >= devices::PciHost::kSlots) {
    return failure(ExitStatus::configuration,
                   fmt::format("{} devices are configured, the PCI bus has room for {}",
                               config_.devices.size(), devices::PciHost::kSlots - 1));
  }
  auto image = GuestImage::open(config_);
  if (!image) return tl::unexpected(image.error());
  image_.emplace(std::move(*image));

  auto board = Board::create(config_);
  if (!board) return tl::unexpected(board.error());
  board_ = std::move(*board);

  // From here on the devices attach, and memory is faulted in, beside everything below.
  DeviceAttach attach(config_.devices, board_->memory(), await_socket_, loop_);
  const bool prefault =
      config_.prefault == Prefault::all ||
      (config_.prefault == Prefault::automatic && config_.page_size != PageSize::k4);
  Result<void> populate_result;
  std::atomic<bool> populated{!prefault};
  std::jthread populate;
  if (prefault) {
    populate = std::jthread([&] {
      populate_result = board_->memory().populate(std::thread::hardware_concurrency());
      populated.store(true);
      loop_.post([] {});
    });
  }

  auto vcpus = board_->power_on(config_.vcpus);
  if (!vcpus) return tl::unexpected(vcpus.error());
  auto set = VcpuSet::create(
      std::move(*vcpus), board_->bus(), marks_,
      [this](VcpuEvent event) { events_.report(std::move(event)); }, config_.vcpu_affinity);
  if (!set) return tl::unexpected(set.error());
  vcpus_ = std::move(*set);
  marks_.stamp(Mark::kvm_ready);
  if (auto plugged = plug_fixed_devices(); !plugged) return plugged;
  if (auto loaded = load_guest(); !loaded) return loaded;
  marks_.stamp(Mark::kernel_loaded);

  if (auto waited = wait_for_devices(attach, populated); !waited) return waited;
  if (populate.joinable()) populate.join();
  if (!populate_result) return populate_result;
  marks_.stamp(Mark::memory_ready);
  auto attached = attach.take();
  if (!attached) return tl::unexpected(attached.error());
  if (auto plugged = plug(std::move(*attached)); !plugged) return plugged;
  marks_.stamp(Mark::devices_attached);
  return {};
}

Result<void> MachineImpl::load_guest() {
  auto entry = image_->load(board_->memory(), board_->layout(), firmware());
  if (!entry) return tl::unexpected(entry.error());
  return board_->cpus().enter(vcpus_->vcpus().front(), *entry);
}

Result<void> MachineImpl::wait_for_devices(DeviceAttach& attach,
                                           const std::atomic<bool>& populated) {
  while (!attach.decided() || !populated.load()) {
    loop_.run_once();
    if (const auto stop = events_.stop_reason()) return failure(stop->status, stop->message);
  }
  return {};
}

Result<void> MachineImpl::plug_fixed_devices() {
  using devices::Priority;
  using devices::Space;
  const arch::Wiring wiring = arch::wiring();
  uart_line_ = std::make_unique<GsiLine>(board_->vm(), wiring.uart_gsi);
  power_line_ = std::make_unique<GsiLine>(board_->vm(), wiring.power_button_gsi);
  uart_ = std::make_unique<devices::Uart16550>(*uart_line_, output_);
  power_ = std::make_unique<devices::PowerBlock>([this](PowerEvent event) { on_power(event); });
  button_ = std::make_unique<devices::PowerButton>(*power_line_);

  Bus& bus = board_->bus();
  bus.map(Space::pio, wiring.uart_port, devices::Uart16550::kSize, *uart_, Priority::fixed);
  bus.map(Space::pio, wiring.power_port, devices::PowerBlock::kSize, *power_, Priority::fixed);
  bus.map(Space::pio, wiring.config_ports, devices::PciHost::kConfigPortsSize, pci_.config_ports(),
          Priority::fixed);
  bus.map(Space::mmio, board_->layout().ecam_base, devices::PciHost::kEcamSize, pci_.ecam(),
          Priority::fixed);
  return {};
}

Result<void> MachineImpl::plug(std::vector<AttachedDevice> attached) {
  const arch::MemoryLayout& layout = board_->layout();
  devices::BarAllocator allocator(layout.mmio32, layout.mmio64, layout.pio);
  for (std::size_t i = 0; i < attached.size(); ++i) {
    auto plugged = plug_one(std::move(attached[i]), i, allocator);
    if (plugged) continue;
    return failure(
        ExitStatus::device_attach,
        fmt::format("device '{}': {}", config_.devices[i].name, plugged.error().message));
  }
  return {};
}

Result<void> MachineImpl::plug_one(AttachedDevice attached, std::size_t index,
                                   devices::BarAllocator& allocator) {
  const DeviceConfig& config = config_.devices[index];
  const auto slot = static_cast<std::uint32_t>(index + 1);
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
  options.on_lost = [this, &config](const vfio_user::Error& error) { on_lost(config, error); };
  options.on_removal_request = [&config] {
    log::warning("device '{}': its server asks for its removal, which outboard does not do",
                 config.name);
  };
  options.on_device_error = [&config] {
    log::warning("device '{}': its server reports an unrecoverable error", config.name);
  };
  const devices::Machine services{board_->bus(),  board_->memslots(),  board_->msi(),
                                  board_->intx(), board_->io_events(), loop_};
  Device device{
      .config = &config, .slot = slot, .client = std::move(attached.client), .function = {}};
  auto function = devices::VfioFunction::create(*device.client, std::move(attached.description),
                                                services, std::move(options));
  if (!function) return failure(ExitStatus::device_attach, function.error().message);
  device.function = std::move(*function);
  if (auto placed = device.function->place_bars(allocator); !placed) {
    return failure(ExitStatus::device_attach, placed.error().message);
  }
  pci_.add(slot, *device.function);
  devices_.push_back(std::move(device));
  return {};
}

// Main thread, from the event loop.
void MachineImpl::on_signal(int signal) {
  if (signal == SIGUSR1) {
    log::info("statistics:\n{}", statistics());
    return;
  }
  const char* name = signal == SIGINT ? "SIGINT" : signal == SIGTERM ? "SIGTERM" : "SIGHUP";
  if (!running_ || power_deadline_) {
    request_stop({ExitStatus::signal_base, signal,
                  fmt::format("ended by {}{}", name, running_ ? "" : " before the guest started")});
    return;
  }
  log::info("{}: pressing the power button; once more ends the machine at once", name);
  press_on_main();
}

void MachineImpl::on_command(ConsoleCommand command) {
  switch (command) {
    case ConsoleCommand::quit:
      request_stop({ExitStatus::powered_off, 0, "ended from the keyboard"});
      return;
    case ConsoleCommand::power_button:
      press_on_main();
      return;
    case ConsoleCommand::help:
      log::info(
          "Ctrl-A x ends the machine, Ctrl-A p presses its power button, Ctrl-A Ctrl-A types "
          "Ctrl-A");
      return;
  }
}

void MachineImpl::press_power_button() {
  loop_.post([this] { press_on_main(); });
}

void MachineImpl::press_on_main() {
  button_->press();
  if (power_deadline_) return;
  const auto deadline = config_.power_button_deadline;
  auto timer = loop_.after(deadline, [this, deadline] {
    request_stop({ExitStatus::deadline, 0,
                  fmt::format("the guest did not power off within {} ms of its power button; it "
                              "was stopped",
                              deadline.count())});
  });
  if (timer) {
    power_deadline_ = *timer;
  } else {
    request_stop({ExitStatus::internal_error, 0, timer.error().message});
  }
}

// On the vCPU thread whose access it was.
void MachineImpl::on_power(PowerEvent event) {
  switch (event.kind) {
    case PowerEvent::Kind::boot_mark:
      marks_.stamp(Mark::guest_user_space);
      return;
    case PowerEvent::Kind::power_off:
      marks_.stamp(Mark::power_off);
      vcpus_->request_pause();
      events_.report({VcpuEvent::Kind::power_off, 0, "power-off"});
      return;
    case PowerEvent::Kind::reset:
      vcpus_->request_pause();
      events_.report({VcpuEvent::Kind::reset, 0, "reset"});
      return;
  }
}

void MachineImpl::on_lost(const DeviceConfig& device, const vfio_user::Error& error) {
  if (device.on_disconnect == OnDisconnect::detach) {
    log::warning("device '{}' is lost: {}; the guest reads all ones from it", device.name,
                 error.message);
    return;
  }
  request_stop({ExitStatus::device_lost, 0,
                fmt::format("device '{}' is lost: {}", device.name, error.message)});
}

ExitReason MachineImpl::run() {
  running_ = true;
  uart_->set_ready_handler([this] { console_.input_ready(); });
  console_.start(
      loop_, [this](std::span<const std::byte> input) { return uart_->receive(input); },
      [this] { uart_->output_ready(); }, [this](ConsoleCommand command) { on_command(command); });
  vcpus_->resume();
  std::optional<ExitReason> reason;
  while (!(reason = handle_events())) loop_.run_once();
  shut_down();
  console_.stop();
  return *reason;
}

std::optional<ExitReason> MachineImpl::handle_events() {
  if (const auto stop = events_.stop_reason()) {
    return ExitReason{stop->status, stop->signal, stop->message};
  }
  const auto event = events_.event();
  if (!event) return std::nullopt;
  switch (event->kind) {
    case VcpuEvent::Kind::power_off:
      return ExitReason{ExitStatus::powered_off, 0, "the guest powered off"};
    case VcpuEvent::Kind::reset:
      if (config_.on_reboot == OnReboot::exit) {
        return ExitReason{ExitStatus::powered_off, 0,
                          "the guest asked for a reboot; on_reboot = \"exit\" ends it"};
      }
      return restart();
    case VcpuEvent::Kind::shutdown:
    case VcpuEvent::Kind::failure:
      return vcpu_failed(*event);
  }
  return std::nullopt;
}

ExitReason MachineImpl::vcpu_failed(const VcpuEvent& event) {
  vcpus_->pause();
  const bool triple = event.kind == VcpuEvent::Kind::shutdown;
  const std::string what =
      triple ? fmt::format("triple fault of vCPU {}: the guest's CPU shut down", event.vcpu)
             : fmt::format("vCPU {}: {}", event.vcpu, event.what);
  log::error("{}", arch::register_dump(vcpus_->vcpus()[event.vcpu], board_->memory()));
  return {triple ? ExitStatus::triple_fault : ExitStatus::vcpu_failure, 0, what};
}

// The guest's reboot: same process, same sockets, every device reset once.
std::optional<ExitReason> MachineImpl::restart() {
  vcpus_->pause();
  events_.forget_event();
  ++restarts_;
  log::info("the guest reboots");
  // The devices first: none of them may write to memory while the kernel is loaded anew.
  pci_.reset();
  uart_->reset();
  auto done = board_->cpus().reset(vcpus_->vcpus());
  if (done) done = load_guest();
  if (!done) return ExitReason{done.error().status, 0, done.error().message};
  vcpus_->resume();
  return std::nullopt;
}

// Repeatable. A vCPU that waits for a server is woken: its connection closes.
void MachineImpl::shut_down() {
  if (vcpus_) vcpus_->request_pause();
  for (const Device& device : devices_) device.client->close();
  if (vcpus_) vcpus_->stop();
}

std::vector<PlacedBar> MachineImpl::placed_bars() const {
  std::vector<PlacedBar> bars;
  for (const Device& device : devices_) {
    for (const devices::BarInfo& bar : device.function->bars()) {
      bars.push_back({.device = device.config->name,
                      .slot = device.slot,
                      .bar = bar.region,
                      .address = bar.address,
                      .size = bar.size,
                      .kind = bar_kind(bar)});
    }
  }
  return bars;
}

std::string MachineImpl::statistics() const {
  std::string text = marks_.report();
  if (vcpus_) text += exit_lines(vcpus_->counters());
  if (board_) {
    text += fmt::format("interrupt routes: sent to KVM {} times; {} reboots\n",
                        board_->msi().pushes(), restarts_);
  }
  if (uart_ && uart_->lost_output() != 0) {
    text += fmt::format("console: {} bytes of output lost\n", uart_->lost_output());
  }
  for (const Device& device : devices_) {
    text +=
        device_lines(device.config->name, device.client->counters(), device.function->counters());
  }
  return text;
}

}  // namespace

Result<std::unique_ptr<Machine>> Machine::create(const MachineConfig& config,
                                                 const MachineParts& parts) {
  auto machine = std::make_unique<MachineImpl>(config, parts);
  if (auto ready = machine->set_up(); !ready) return tl::unexpected(ready.error());
  return std::unique_ptr<Machine>(std::move(machine));
}

}  // namespace outboard::vmm
