#include "devices/vfio_function.h"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/access_counters.h"
#include "devices/access_marks.h"
#include "devices/client_adapters.h"
#include "devices/completion_probe.h"
#include "devices/config_policy.h"
#include "devices/device_identity.h"
#include "devices/device_link.h"
#include "devices/function_bars.h"
#include "devices/function_interrupts.h"
#include "devices/guest_log.h"
#include "devices/msix_window.h"
#include "devices/pci_registers.h"
#include "devices/vfio_config.h"

namespace outboard::devices {
namespace {

using pci::command::kDecode;
using pci::command::kForwarded;

// Mass storage, non-volatile memory, NVM Express (PCI Code and ID Assignment 1.11 §1.2).
constexpr std::uint32_t kNvmeClass = 0x010802;
constexpr std::uint64_t kNvmeControllerConfiguration = 0x14;  // NVMe 1.4 §3.1.5
constexpr std::uint64_t kNvmeAdminDoorbell = 0x1000;          // NVMe 1.4 §3.1.24

constexpr std::uint32_t all_ones(std::uint32_t size) {
  return size >= 4 ? 0xffffffff : (1U << (8 * size)) - 1;
}

}  // namespace

// Held by the function and, for the length of a callback, by the event loop.
class VfioFunction::Impl : public std::enable_shared_from_this<VfioFunction::Impl> {
 public:
  Impl(std::shared_ptr<vfio_user::Client> client, vfio_user::DeviceDescription description,
       SignalFds signals, const Machine& machine, VfioFunctionOptions options)
      : machine_(machine),
        options_(std::move(options)),
        description_(std::move(description)),
        log_("device '" + options_.name + "'", options_.log),
        link_(std::move(client), {.hold = options_.hold,
                                  .log = options_.log,
                                  .name = options_.name,
                                  .on_down = [this](const auto& why) { on_down(why); }}),
        irqs_(link_),
        remote_config_(link_),
        signals_(std::move(signals)) {}

  Result<void> build();
  void watch_client();
  void shut_down();

  void disconnect();
  Reconnected reconnect(std::shared_ptr<vfio_user::Client> client,
                        vfio_user::DeviceDescription description, SignalFds signals);
  void give_up(const std::string& why);
  DeviceLink& link() { return link_; }
  const DeviceLink& link() const { return link_; }

  Result<void> place_bars(BarAllocator& allocator);
  std::uint32_t config_read(std::uint32_t reg, std::uint32_t size);
  void config_write(std::uint32_t reg, std::uint32_t size, std::uint32_t value);
  void reset();

  const std::string& name() const { return options_.name; }
  std::vector<BarInfo> bars() const;
  VfioFunctionCounters counters() const;

 private:
  void open_bars(const ConfigPlan& plan);
  void watch_signal(std::uint32_t index, vfio_user::UniqueFd& fd,
                    std::atomic<std::uint64_t>& counter, std::string told,
                    const std::function<void()>& handler);
  bool arm_signal(const vfio_user::Irq& irq, vfio_user::UniqueFd& fd);
  void pages_lost();
  void on_down(const vfio_user::Error& why);
  void device_lost(const vfio_user::Error& why);
  void unwatch();
  bool restore(bool resumes);
  void write_config(std::uint32_t reg, std::uint32_t size, std::uint32_t value);

  std::uint16_t command() const;
  void settle();
  void stamp(DeviceMark mark) {
    if (options_.marks != nullptr) options_.marks->stamp(mark);
  }
  void stamp_state();
  void forward_power(std::uint32_t state);
  void forward_command();
  void function_level_reset();
  void reread_config();

  const Machine machine_;
  const VfioFunctionOptions options_;
  vfio_user::DeviceDescription description_;  // under mutex_ once built, as it may be replaced
  vfio_user::UniqueFd pages_lost_;            // an eventfd; outlives bars_ and its watch
  bool lost_ = false;                         // event loop
  GuestLog log_;                              // any thread
  DeviceLink link_;                           // see there
  AccessCounters counters_;                   // any thread
  ClientIrqs irqs_;                           // any thread
  ClientConfig remote_config_;                // any thread
  std::atomic<std::uint64_t> device_errors_{0};
  std::atomic<std::uint64_t> removal_requests_{0};

  // Serialises config accesses and MSI-X table accesses of the guest with each other, with reset
  // and with the loss of the device. Held while the server is asked for a config register or an
  // interrupt set-up, never during a BAR access. Taken before the locks inside machine_'s services.
  mutable std::mutex mutex_;
  std::unique_ptr<VfioConfig> config_;      // under mutex_, as the next four
  std::unique_ptr<CompletionProbe> probe_;  // none unless the function is an NVMe controller
  std::unique_ptr<FunctionInterrupts> interrupts_;
  std::unique_ptr<FunctionBars> bars_;
  std::vector<WatchId> watches_;
  bool reset_missed_ = false;  // the machine was reset while the server was gone

  // Set by build(), then read by any thread.
  std::optional<AccessMarks> access_marks_;
  std::unique_ptr<MsixTableWindow> msix_table_;
  std::unique_ptr<PendingBitsWindow> pending_bits_;
  SignalFds signals_;                  // outlive their watches
  std::uint32_t power_control_ = 0;    // PMCSR, 0: none
  std::uint32_t express_control_ = 0;  // Device Control, 0: no function level reset
};

// --- set-up and the end ---

Result<void> VfioFunction::Impl::build() {
  pages_lost_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!pages_lost_) return failure(std::string("eventfd: ") + std::strerror(errno));
  auto registers = BarRegisters::create(description_.regions, description_.config);
  if (!registers) return tl::unexpected(registers.error());
  bars_ = std::make_unique<FunctionBars>(*registers);

  ConfigRequest request;
  request.config = description_.config;
  request.regions = description_.regions;
  request.irqs = description_.irqs;
  request.bars = &bars_->registers();
  request.ids = options_.ids;
  request.interrupt_pin = options_.intx_gsi.has_value();
  request.max_vectors = options_.max_vectors;
  auto plan = plan_config(request);
  if (!plan) return tl::unexpected(plan.error());
  for (const std::string& remark : plan->remarks) log_.line(Severity::warning, remark);

  if (plan->power_offset != 0) power_control_ = plan->power_offset + pci::pm::kControl;
  if (plan->function_reset) {
    express_control_ = plan->express_offset + pci::express::kDeviceControl;
  }
  config_ =
      std::make_unique<VfioConfig>(*plan, description_.config, remote_config_, counters_, log_);
  const bool nvme = config_->peek(pci::kRevisionId, 4) >> 8 == kNvmeClass;
  // After these a doorbell may be another queue's, and must not be rung again: a controller that is
  // enabled has none, and admin commands delete and create them.
  if (nvme) {
    link_.set_fences(vfio_user::kRegionBar0, {kNvmeControllerConfiguration, kNvmeAdminDoorbell});
  }
  if (options_.marks != nullptr) {
    access_marks_.emplace(*options_.marks, nvme);
    counters_.marks = &*access_marks_;
    if (nvme) {
      probe_ = std::make_unique<CompletionProbe>(machine_.msi, machine_.loop, *options_.marks);
    }
  }
  const auto requester = static_cast<std::uint16_t>(options_.slot << 3);  // bus 0, function 0
  MsiRouter& msi = probe_ ? static_cast<MsiRouter&>(*probe_) : machine_.msi;
  interrupts_ = std::make_unique<FunctionInterrupts>(
      *plan, description_.irqs, options_.intx_gsi,
      FunctionInterrupts::Services{irqs_, msi, machine_.intx, log_, requester,
                                   options_.intx_thread_started},
      *config_);
  open_bars(*plan);
  return {};
}

void VfioFunction::Impl::open_bars(const ConfigPlan& plan) {
  if (plan.msix) {
    const bool readable = description_.regions[plan.msix->pba_region].readable;
    msix_table_ = std::make_unique<MsixTableWindow>(*interrupts_, mutex_, link_);
    pending_bits_ = std::make_unique<PendingBitsWindow>(*interrupts_, mutex_, link_, readable);
  }
  for (const BarInfo& bar : bars_->registers().list()) {
    std::vector<Overlay> overlays;
    if (plan.msix && plan.msix->table_region == bar.region) {
      overlays.push_back({{plan.msix->table_offset, plan.msix->table_size()}, msix_table_.get()});
    }
    if (plan.msix && plan.msix->pba_region == bar.region) {
      overlays.push_back({{plan.msix->pba_offset, plan.msix->pba_size()}, pending_bits_.get()});
    }
    bars_->open(description_.regions[bar.region], std::move(overlays),
                options_.map_region.at(bar.region), pages_lost_.get(), link_, machine_.io_events,
                counters_, log_);
  }
}

void VfioFunction::Impl::watch_client() {
  vfio_user::Client& client = *link_.client();
  const std::uint64_t generation = link_.generation();
  {
    std::lock_guard lock(mutex_);
    watches_.push_back(machine_.loop.watch(client.poll_fd(), EPOLLIN,
                                           [&client](std::uint32_t) { client.service(); }));
    watches_.push_back(
        machine_.loop.watch(pages_lost_.get(), EPOLLIN, [weak = weak_from_this()](std::uint32_t) {
          if (const auto self = weak.lock()) self->pages_lost();
        }));
    watch_signal(vfio_user::kIrqErr, signals_.error, device_errors_,
                 "its server reports an unrecoverable error", options_.on_device_error);
    watch_signal(vfio_user::kIrqReq, signals_.removal, removal_requests_,
                 "its server asks for its removal, which outboard does not do",
                 options_.on_removal_request);
  }
  client.set_down_handler([weak = weak_from_this(), generation](const vfio_user::Error& why) {
    if (const auto self = weak.lock()) self->link_.lose(generation, why);
  });
}

void VfioFunction::Impl::watch_signal(std::uint32_t index, vfio_user::UniqueFd& fd,
                                      std::atomic<std::uint64_t>& counter, std::string told,
                                      const std::function<void()>& handler) {
  if (!handler || index >= description_.irqs.size()) return;
  const vfio_user::Irq& irq = description_.irqs[index];
  if (!irq.eventfd || irq.count == 0) return;
  if (!irq.armed && !arm_signal(irq, fd)) return;
  const int raw_fd = fd.get();
  watches_.push_back(machine_.loop.watch(
      raw_fd, EPOLLIN, [this, raw_fd, &counter, line = std::move(told), handler](std::uint32_t) {
        std::uint64_t times = 0;
        if (::read(raw_fd, &times, sizeof times) != sizeof times) return;
        counter += times;
        log_.line(Severity::warning, line);
        handler();
      }));
}

// For whoever attached without signals.
bool VfioFunction::Impl::arm_signal(const vfio_user::Irq& irq, vfio_user::UniqueFd& fd) {
  std::string why = irq.refused;
  if (why.empty()) {
    fd.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    const int raw_fd = fd.get();
    const auto armed = irqs_.arm(irq.index, 0, std::span(&raw_fd, 1));
    if (armed) return true;
    why = armed.error().message;
  }
  log_.line(Severity::warning, "its error and removal events stay unknown: " + why);
  return false;
}

void VfioFunction::Impl::unwatch() {
  std::vector<WatchId> watches;
  {
    std::lock_guard lock(mutex_);
    watches = std::exchange(watches_, {});
  }
  // Not under the lock: a callback that waits for it must come to its end.
  for (const WatchId watch : watches) machine_.loop.unwatch(watch);
}

void VfioFunction::Impl::shut_down() {
  link_.stop();
  unwatch();
  std::lock_guard lock(mutex_);
  link_.quiet();
  interrupts_->drop();
  bars_->close(0);
}

// On the event loop: what the guest sees there now is nobody's, so the whole device is dead.
void VfioFunction::Impl::pages_lost() {
  vfio_user::Error why{vfio_user::Error::Kind::protocol, EFAULT, {}};
  std::uint64_t generation = 0;
  {
    std::lock_guard lock(mutex_);
    std::uint64_t times = 0;
    if (::read(pages_lost_.get(), &times, sizeof times) != sizeof times) return;
    if (!link_.usable()) return;
    why.message =
        link_.client()->name() + ": the server shortened a file while its pages were mapped";
    generation = link_.generation();
  }
  link_.lose(generation, why);
}

// On any thread, perhaps inside an access.
void VfioFunction::Impl::on_down(const vfio_user::Error& why) {
  if (options_.hold) {
    if (options_.on_down) options_.on_down();
    return;
  }
  machine_.loop.post([weak = weak_from_this(), why] {
    if (const auto self = weak.lock()) self->device_lost(why);
  });
}

// On the event loop, once. Every access fails at once from here on, so nobody holds mutex_ for
// long.
void VfioFunction::Impl::device_lost(const vfio_user::Error& why) {
  if (std::exchange(lost_, true)) return;
  shut_down();
  if (options_.on_lost) options_.on_lost(why);
}

// --- a server that comes back ---

void VfioFunction::Impl::disconnect() {
  unwatch();
  std::lock_guard lock(mutex_);
  if (link_.client() == nullptr) return;
  link_.client()->set_down_handler({});
  link_.quiet();  // first: an access that ends now may still bring ioeventfds into force
  interrupts_->drop();
  bars_->trap();
  std::uint64_t times = 0;
  (void)!::read(pages_lost_.get(), &times, sizeof times);
  for (vfio_user::Region& region : description_.regions) region.fds.clear();
  signals_ = {};
  link_.retire();
}

Reconnected VfioFunction::Impl::reconnect(std::shared_ptr<vfio_user::Client> client,
                                          vfio_user::DeviceDescription description,
                                          SignalFds signals) {
  using Kind = Reconnected::Kind;
  bool resumed = false;
  {
    std::lock_guard lock(mutex_);
    if (auto why = identity_difference(description_, description); !why.empty()) {
      return {Kind::refused, "another device is behind its socket: " + why};
    }
    link_.install(std::move(client));
    description_ = std::move(description);
    signals_ = std::move(signals);
    resumed = link_.resumes() && !reset_missed_;
    if (!restore(resumed) || !link_.open(resumed)) {
      vfio_user::Error why = link_.client()->death();
      interrupts_->drop();
      bars_->trap();
      for (vfio_user::Region& region : description_.regions) region.fds.clear();
      signals_ = {};
      link_.retire();
      return {Kind::lost, std::move(why.message)};
    }
    reset_missed_ = false;
  }
  watch_client();
  return {resumed ? Kind::resumed : Kind::reset, {}};
}

// Brings the new server to where the guest has its device. The same order as in settle(), and then
// what its predecessor may have missed. False: it died.
bool VfioFunction::Impl::restore(bool resumes) {
  vfio_user::Client& client = *link_.client();
  config_->refresh_held(description_.config);
  if (!resumes) {
    if (const auto done = client.reset(); !done && client.alive()) {
      log_.line(Severity::warning,
                "its reset failed, it goes on all the same: " + done.error().message);
    }
    reread_config();
  }
  config_->rewrite();
  interrupts_->restore();
  if (power_control_ != 0) forward_power(config_->peek(power_control_, 2));
  if (resumes) {
    // Whatever its config space says: mastering is what the server waits for.
    config_->send(pci::kCommand, command() & kForwarded);
  } else {
    forward_command();
  }
  bars_->share(description_.regions, pages_lost_.get(), log_);
  if (!resumes) bars_->refresh_events();
  if (resumes) {
    interrupts_->signal_all();
    if (const auto repeated = link_.repeat_posted(); !repeated) return false;
  }
  return client.alive();
}

void VfioFunction::Impl::give_up(const std::string& why) {
  // First: the machine may have to end before the guest goes on.
  machine_.loop.post([weak = weak_from_this(), why] {
    const auto self = weak.lock();
    if (!self || std::exchange(self->lost_, true)) return;
    if (self->options_.on_lost) {
      self->options_.on_lost({vfio_user::Error::Kind::closed, ENOTCONN, why});
    }
  });
  link_.fail(why);
}

Result<void> VfioFunction::Impl::place_bars(BarAllocator& allocator) {
  std::lock_guard lock(mutex_);
  return bars_->place(allocator, machine_.bus, machine_.pages, log_);
}

// --- configuration space ---

std::uint32_t VfioFunction::Impl::config_read(std::uint32_t reg, std::uint32_t size) {
  DeviceLink::Patience patience(link_);
  do {
    std::lock_guard lock(mutex_);
    if (!link_.usable()) continue;
    stamp(DeviceMark::config_access);
    if (BarRegisters::owns(reg)) return bars_->read(reg, size);
    interrupts_->refresh_pending(reg, size);
    const std::uint32_t value = config_->read(reg, size);
    if (link_.usable()) return value;  // else some of it may have been asked in vain
  } while (link_.wait(patience));
  return all_ones(size);
}

void VfioFunction::Impl::config_write(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
  DeviceLink::Patience patience(link_);
  do {
    std::lock_guard lock(mutex_);
    if (!link_.usable()) continue;  // under the lock: after a loss nothing is opened again
    stamp(DeviceMark::config_access);
    write_config(reg, size, value);
    if (link_.usable()) return;  // else the server may have missed it: once more, to the next one
  } while (link_.wait(patience));
}

void VfioFunction::Impl::write_config(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
  if (BarRegisters::owns(reg)) {
    bars_->write(reg, size, value);
    return bars_->move(command());
  }
  config_->write(reg, size, value);
  if (express_control_ != 0 &&
      (config_->peek(express_control_, 2) & pci::express::kFunctionReset) != 0) {
    return function_level_reset();
  }
  settle();
}

std::uint16_t VfioFunction::Impl::command() const {
  return static_cast<std::uint16_t>(config_->peek(pci::kCommand, 2));
}

// Brings interrupts, BARs and the server's registers in line with the shadow. Closing comes first,
// then the server learns, then opening: nothing reaches a device that does not expect it yet.
void VfioFunction::Impl::settle() {
  bars_->close(command());
  interrupts_->settle();
  if (power_control_ != 0) forward_power(config_->peek(power_control_, 2));
  forward_command();
  bars_->move(command());
  stamp_state();
}

void VfioFunction::Impl::stamp_state() {
  if ((command() & pci::command::kMemory) != 0) stamp(DeviceMark::memory_decoding);
  if (interrupts_->msix_enabled()) stamp(DeviceMark::msix_enabled);
}

void VfioFunction::Impl::forward_power(std::uint32_t state) {
  const std::uint32_t others = config_->held(power_control_) & ~pci::pm::kStateMask;
  config_->forward(power_control_,
                   static_cast<std::uint16_t>(others | (state & pci::pm::kStateMask)));
}

// Guests turn decoding off while they size a BAR and on again after it. No access can reach the
// server in between, so it need not know: a write that only clears decode bits stays here.
void VfioFunction::Impl::forward_command() {
  const std::uint16_t held = config_->held(pci::kCommand) & kForwarded;
  const std::uint16_t wanted = command() & kForwarded;
  const bool only_clears_decode = (held & wanted) == wanted && ((held ^ wanted) & ~kDecode) == 0;
  if (!only_clears_decode) config_->forward(pci::kCommand, wanted);
}

// --- reset ---

void VfioFunction::Impl::function_level_reset() {
  config_->poke(express_control_, 2,
                config_->peek(express_control_, 2) & ~pci::express::kFunctionReset);
  interrupts_->silence();
  config_->poke(pci::kCommand, 2, 0);
  config_->forget_writes();
  link_.forget_posted();
  bars_->close(0);
  config_->send(express_control_, static_cast<std::uint16_t>(config_->held(express_control_) |
                                                             pci::express::kFunctionReset));
  bars_->refresh_events();
  reread_config();
  config_->forward(pci::kCommand, 0);  // for a server that left it as it was
}

void VfioFunction::Impl::reset() {
  std::lock_guard lock(mutex_);
  const bool served = link_.usable();
  if (!served && !options_.hold) return;
  reset_missed_ = !served;  // who comes back is reset then
  interrupts_->silence();
  bars_->close(0);
  bars_->reset();
  config_->reset_shadow();
  link_.forget_posted();
  config_->forward(pci::kCommand, 0);
  if (power_control_ != 0) forward_power(0);
  if (!served) return;
  if (const auto done = link_.client()->reset(); !done && link_.usable()) {
    log_.line(Severity::warning,
              "its reset failed, the guest starts all the same: " + done.error().message);
  }
  bars_->refresh_events();
  reread_config();
  if (!link_.usable()) reset_missed_ = true;
}

void VfioFunction::Impl::reread_config() {
  std::vector<std::byte> raw(description_.config.size());
  if (link_.client() == nullptr) return;
  const auto got = link_.client()->region_read(vfio_user::kRegionConfig, 0, raw);
  if (got && *got == raw.size()) config_->refresh_held(raw);
}

// --- what others ask ---

std::vector<BarInfo> VfioFunction::Impl::bars() const {
  std::lock_guard lock(mutex_);
  return bars_->list();
}

VfioFunctionCounters VfioFunction::Impl::counters() const {
  return {.bar_reads = counters_.bar_reads,
          .bar_writes = counters_.bar_writes,
          .access_errors = counters_.access_errors,
          .config_forwards = counters_.config_forwards,
          .config_errors = counters_.config_errors,
          .intx_unmasks = interrupts_->intx_unmasks(),
          .device_errors = device_errors_,
          .removal_requests = removal_requests_,
          .lines_suppressed = log_.suppressed()};
}

Result<std::unique_ptr<VfioFunction>> VfioFunction::create(
    std::shared_ptr<vfio_user::Client> client, vfio_user::DeviceDescription description,
    const Machine& machine, VfioFunctionOptions options, SignalFds signals) {
  auto impl = std::make_shared<Impl>(std::move(client), std::move(description), std::move(signals),
                                     machine, std::move(options));
  if (auto built = impl->build(); !built) return tl::unexpected(built.error());
  impl->watch_client();
  return std::unique_ptr<VfioFunction>(new VfioFunction(std::move(impl)));
}

VfioFunction::VfioFunction(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

VfioFunction::~VfioFunction() {
  impl_->shut_down();
}

Result<void> VfioFunction::place_bars(BarAllocator& allocator) {
  return impl_->place_bars(allocator);
}

std::uint32_t VfioFunction::config_read(std::uint32_t reg, std::uint32_t size) {
  return impl_->config_read(reg, size);
}

void VfioFunction::config_write(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
  impl_->config_write(reg, size, value);
}

void VfioFunction::reset() {
  impl_->reset();
}

void VfioFunction::disconnect() {
  impl_->disconnect();
}

Reconnected VfioFunction::reconnect(std::shared_ptr<vfio_user::Client> client,
                                    vfio_user::DeviceDescription description, SignalFds signals) {
  return impl_->reconnect(std::move(client), std::move(description), std::move(signals));
}

void VfioFunction::trying() {
  impl_->link().set_trying();
}

void VfioFunction::not_yet(const std::string& why) {
  impl_->link().set_waiting(why);
}

void VfioFunction::give_up(const std::string& why) {
  impl_->give_up(why);
}

void VfioFunction::let_wait(bool may) {
  impl_->link().let_wait(may);
}

void VfioFunction::close() {
  impl_->link().stop();
}

LinkCounters VfioFunction::link() const {
  return impl_->link().counters();
}

vfio_user::ClientCounters VfioFunction::messages() const {
  return impl_->link().messages();
}

std::chrono::steady_clock::time_point VfioFunction::lost_at() const {
  return impl_->link().lost_at();
}

const std::string& VfioFunction::name() const {
  return impl_->name();
}

std::vector<BarInfo> VfioFunction::bars() const {
  return impl_->bars();
}

VfioFunctionCounters VfioFunction::counters() const {
  return impl_->counters();
}

}  // namespace outboard::devices
