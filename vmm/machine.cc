#include "vmm/machine.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <future>
#include <thread>
#include <utility>

#include <fmt/core.h>

#include "devices/bar_allocator.h"
#include "vmm/board.h"
#include "vmm/console.h"
#include "vmm/device_attach.h"
#include "vmm/event_loop.h"
#include "vmm/fixed_devices.h"
#include "vmm/guest_image.h"
#include "vmm/log.h"
#include "vmm/machine_events.h"
#include "vmm/marks.h"
#include "vmm/memory_use.h"
#include "vmm/pci_device.h"
#include "vmm/read_file.h"
#include "vmm/sandbox.h"
#include "vmm/statistics.h"
#include "vmm/vcpu_set.h"

namespace outboard::vmm {
namespace {

using devices::PowerEvent;

class MachineImpl final : public Machine {
 public:
  MachineImpl(const MachineConfig& config, const MachineParts& parts)
      : config_(config),
        loop_(parts.loop),
        console_(parts.console),
        marks_(parts.marks),
        await_socket_(parts.await_socket),
        revive_socket_(parts.revive_socket),
        trace_(parts.trace),
        sandbox_(parts.sandbox),
        started_(parts.started),
        events_(parts.loop) {}
  ~MachineImpl() override;

  Result<void> set_up();

  ExitReason run() override;
  void press_power_button() override;
  void request_stop(StopReason reason) override { events_.stop(std::move(reason)); }
  std::vector<PlacedBar> placed_bars() const override;
  MachineCounters counters() const override;
  std::string statistics() const override {
    return statistics_text(marks_, counters(), memory_use(smaps_),
                           sandbox_ != nullptr ? std::optional(sandbox_->report()) : std::nullopt);
  }

 private:
  Result<void> watch_signals();
  Result<void> wait_for_devices(DeviceAttach& attach, const std::atomic<bool>& populated);
  Result<void> plug(std::vector<AttachedDevice> attached);
  Result<void> enter_guest();
  void on_signal(int signal);
  void on_power(PowerEvent event);
  void on_command(ConsoleCommand command);
  void on_lost(const DeviceConfig& device, const vfio_user::Error& error);
  void press_on_main();
  std::optional<ExitReason> handle_events();
  void pause_vcpus();
  ExitReason powered_off(std::string message);
  ExitReason vcpu_failed(const VcpuEvent& event);
  std::optional<ExitReason> restart();
  void shut_down();
  arch::GuestDescription guest() const;

  const MachineConfig config_;
  EventLoop& loop_;
  ConsoleBackend& console_;
  Marks& marks_;
  const std::function<vfio_user::Result<std::string>(const DeviceConfig&)> await_socket_;
  const Reconnector::FindSocket revive_socket_;
  Trace* const trace_;      // may be none
  Sandbox* const sandbox_;  // may be none
  const std::function<void()> started_;
  MachineEvents events_;
  std::vector<devices::DeviceMarks*> device_marks_;  // one a device, of marks_
  std::optional<devices::WatchId> signals_;
  std::optional<devices::WatchId> power_deadline_;  // main thread
  bool running_ = false;                            // main thread: the guest has been started
  std::uint64_t restarts_ = 0;                      // main thread
  const KernelFile smaps_{"/proc/self/smaps"};      // opened while files may be
  log::RateLimit reboot_log_;                       // the guest can trigger these lines

  // Destroyed from the bottom up: vCPUs, devices, bridge, board.
  std::optional<GuestImage> image_;
  std::unique_ptr<Board> board_;
  std::unique_ptr<FixedDevices> fixed_;
  std::vector<PciDevice> devices_;
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

arch::GuestDescription MachineImpl::guest() const {
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

  // From here on the devices attach, KVM makes the VM, memory is faulted in and the kernel is
  // loaded, all beside each other.
  for (const DeviceConfig& device : config_.devices) {
    device_marks_.push_back(&marks_.add_device(device.name));
  }
  DeviceAttach attach(config_.devices, device_marks_, board_->memory(), await_socket_, loop_,
                      trace_, sandbox_);
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

  auto powered = std::async(std::launch::async, [this, prefault] {
    auto vcpus = board_->power_on(config_.vcpus);
    marks_.stamp(Mark::kvm_ready);
    if (!prefault) marks_.stamp(Mark::memory_ready);
    return vcpus;
  });
  const auto kernel = image_->load_kernel(board_->memory());

  auto vcpus = powered.get();
  if (!vcpus) return tl::unexpected(vcpus.error());
  if (!kernel) return tl::unexpected(kernel.error());
  auto set = VcpuSet::create(
      std::move(*vcpus), board_->bus(), marks_,
      [this](VcpuEvent event) { events_.report(std::move(event)); }, config_.vcpu_affinity, trace_,
      sandbox_);
  if (!set) return tl::unexpected(set.error());
  vcpus_ = std::move(*set);
  fixed_ = std::make_unique<FixedDevices>(*board_, console_, marks_,
                                          [this](PowerEvent event) { on_power(event); });
  if (auto entered = enter_guest(); !entered) return entered;
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

// The kernel is in memory.
Result<void> MachineImpl::enter_guest() {
  auto entry = image_->load_rest(board_->memory(), board_->layout(), guest());
  if (!entry) return tl::unexpected(entry.error());
  return board_->cpus().enter(vcpus_->vcpus().front(), *entry);
}

Result<void> MachineImpl::wait_for_devices(DeviceAttach& attach,
                                           const std::atomic<bool>& populated) {
  while (!attach.decided() || !populated.load()) {
    loop_.run_once();
    if (const auto stop = events_.stop_reason()) {
      return failure(static_cast<ExitStatus>(to_int(stop->status) + stop->signal), stop->message);
    }
  }
  return {};
}

Result<void> MachineImpl::plug(std::vector<AttachedDevice> attached) {
  const arch::MemoryLayout& layout = board_->layout();
  devices::BarAllocator allocator(layout.mmio32, layout.mmio64, layout.pio);
  const devices::Machine services{board_->bus(),  board_->memslots(),  board_->msi(),
                                  board_->intx(), board_->io_events(), loop_};
  devices_.reserve(attached.size());
  for (std::size_t i = 0; i < attached.size(); ++i) {
    const auto slot = static_cast<std::uint32_t>(i + 1);
    auto device = PciDevice::plug(
        config_.devices[i], slot, std::move(attached[i]), services, allocator, *device_marks_[i],
        board_->memory(), revive_socket_, sandbox_,
        [this](const DeviceConfig& config, const vfio_user::Error& error) {
          on_lost(config, error);
        },
        [this](StopReason reason) { request_stop(std::move(reason)); });
    if (!device) return tl::unexpected(device.error());
    fixed_->pci().add(slot, device->function());
    devices_.push_back(std::move(*device));
  }
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
  fixed_->press_power_button();
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
  if (device.on_disconnect == OnDisconnect::reconnect &&
      device.reconnect.give_up == OnGiveUp::detach) {
    return;  // it has said so itself
  }
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
  fixed_->start_console(loop_, [this](ConsoleCommand command) { on_command(command); });
  enter(sandbox_, ThreadKind::main, "main");
  vcpus_->resume();
  if (started_) started_();
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
      return powered_off("the guest powered off");
    case VcpuEvent::Kind::reset:
      if (config_.on_reboot == OnReboot::exit) {
        return powered_off("the guest asked for a reboot; on_reboot = \"exit\" ends it");
      }
      return restart();
    case VcpuEvent::Kind::shutdown:
    case VcpuEvent::Kind::failure:
      return vcpu_failed(*event);
  }
  return std::nullopt;
}

// A guest that ends because a device reads all ones does not hide that loss, of which the loop may
// not have been told yet.
ExitReason MachineImpl::powered_off(std::string message) {
  const auto stops = [](const PciDevice& device) { return device.stops_machine(); };
  while (!events_.stop_reason() && std::ranges::any_of(devices_, stops)) loop_.run_once();
  const auto stop = events_.stop_reason();
  if (stop && stop->status == ExitStatus::device_lost) {
    return {stop->status, stop->signal, stop->message};
  }
  return {ExitStatus::powered_off, 0, std::move(message)};
}

// A vCPU may be waiting for a server to come back, which must keep nobody.
void MachineImpl::pause_vcpus() {
  vcpus_->request_pause();
  for (PciDevice& device : devices_) device.let_wait(false);
  vcpus_->pause();
}

ExitReason MachineImpl::vcpu_failed(const VcpuEvent& event) {
  pause_vcpus();
  const bool triple = event.kind == VcpuEvent::Kind::shutdown;
  const std::string what =
      triple ? fmt::format("triple fault of vCPU {}: the guest's CPU shut down", event.vcpu)
             : fmt::format("vCPU {}: {}", event.vcpu, event.what);
  log::error("{}", arch::register_dump(vcpus_->vcpus()[event.vcpu], board_->memory()));
  return {triple ? ExitStatus::triple_fault : ExitStatus::vcpu_failure, 0, what};
}

// The guest's reboot: same process, same sockets, every device reset once.
std::optional<ExitReason> MachineImpl::restart() {
  pause_vcpus();
  events_.forget_event();
  ++restarts_;
  log::write_limited(reboot_log_, log::Level::info, "the guest reboots");
  // The devices first: none of them may write to memory while the kernel is loaded anew.
  fixed_->reset();
  auto done = board_->cpus().reset(vcpus_->vcpus());
  if (done) done = image_->load_kernel(board_->memory());
  if (done) done = enter_guest();
  if (!done) return ExitReason{done.error().status, 0, done.error().message};
  for (PciDevice& device : devices_) device.let_wait(true);
  vcpus_->resume();
  return std::nullopt;
}

// Repeatable. A vCPU that waits for a server is woken: its connection closes.
void MachineImpl::shut_down() {
  if (vcpus_) vcpus_->request_pause();
  for (PciDevice& device : devices_) device.close();
  if (vcpus_) vcpus_->stop();
}

std::vector<PlacedBar> MachineImpl::placed_bars() const {
  std::vector<PlacedBar> all;
  for (const PciDevice& device : devices_) {
    for (PlacedBar& bar : device.bars()) all.push_back(std::move(bar));
  }
  return all;
}

MachineCounters MachineImpl::counters() const {
  MachineCounters all;
  if (vcpus_) all.vcpus = vcpus_->counters();
  for (const PciDevice& device : devices_) all.devices.push_back(device.counters());
  if (board_) all.route_pushes = board_->msi().pushes();
  all.reboots = restarts_;
  if (fixed_) all.console_lost = fixed_->lost_output();
  return all;
}

}  // namespace

Result<std::unique_ptr<Machine>> Machine::create(const MachineConfig& config,
                                                 const MachineParts& parts) {
  auto machine = std::make_unique<MachineImpl>(config, parts);
  if (auto ready = machine->set_up(); !ready) return tl::unexpected(ready.error());
  return std::unique_ptr<Machine>(std::move(machine));
}

}  // namespace outboard::vmm
