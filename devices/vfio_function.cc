#include "devices/vfio_function.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/access_counters.h"
#include "devices/aligned_pieces.h"
#include "devices/bar_mapping.h"
#include "devices/bar_registers.h"
#include "devices/client_adapters.h"
#include "devices/config_policy.h"
#include "devices/guest_log.h"
#include "devices/intx.h"
#include "devices/msi.h"
#include "devices/msix.h"
#include "devices/pci_registers.h"
#include "devices/region_pages.h"
#include "devices/region_window.h"
#include "devices/vfio_config.h"

namespace outboard::devices {
namespace {

using pci::command::kDecode;
using pci::command::kForwarded;
using pci::command::kIntxDisable;
using pci::command::kMaster;

constexpr std::uint32_t all_ones(std::uint32_t size) {
  return size >= 4 ? 0xffffffff : (1U << (8 * size)) - 1;
}

bool touches(std::uint32_t reg, std::uint32_t size, std::uint32_t at, std::uint32_t bytes) {
  return reg < at + bytes && at < reg + size;
}

// Which interrupt the device may use now.
enum class IrqMode { none, intx, msi, msix };

}  // namespace

// Held by the function and, for the length of a callback, by the event loop.
class VfioFunction::Impl : public std::enable_shared_from_this<VfioFunction::Impl> {
 public:
  Impl(vfio_user::Client& client, vfio_user::DeviceDescription description, const Machine& machine,
       VfioFunctionOptions options)
      : client_(client),
        machine_(machine),
        options_(std::move(options)),
        description_(std::move(description)),
        log_(options_.name, options_.log),
        irqs_(client),
        remote_config_(client) {}

  Result<void> build();
  void watch_client();
  void shut_down();

  Result<void> place_bars(BarAllocator& allocator);
  std::uint32_t config_read(std::uint32_t reg, std::uint32_t size);
  void config_write(std::uint32_t reg, std::uint32_t size, std::uint32_t value);
  void reset();

  const std::string& name() const { return options_.name; }
  std::vector<BarInfo> bars() const;
  VfioFunctionCounters counters() const;

 private:
  // One BAR or the ROM: its pages, its trapped accesses, its place.
  struct Bar {
    Bar(RegionPages shared_pages, const RegionWindow::Shape& shape, std::vector<Overlay> overlays,
        Impl& owner)
        : pages(std::move(shared_pages)),
          window(shape, std::move(overlays), owner.client_, owner.counters_, owner.log_) {}
    RegionPages pages;
    RegionWindow window;
    std::optional<BarMapping> mapping;
  };

  // The MSI-X table and the PBA as parts of a BAR.
  class Table final : public BusDevice {
   public:
    explicit Table(Impl& owner) : owner_(owner) {}
    void read(std::uint64_t offset, std::span<std::byte> data) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

   private:
    Impl& owner_;
  };
  class PendingBits final : public BusDevice {
   public:
    explicit PendingBits(Impl& owner) : owner_(owner) {}
    void read(std::uint64_t offset, std::span<std::byte> data) override;
    void write(std::uint64_t, std::span<const std::byte>) override {}  // read only

   private:
    Impl& owner_;
    std::atomic<bool> ask_server_{true};  // any vCPU; false after the server's first refusal
  };

  void build_bar(std::uint32_t region);
  void build_signals();
  void watch_signal(std::uint32_t index, std::function<void()> handler);
  void device_lost();

  std::uint16_t command() const {
    return static_cast<std::uint16_t>(config_->peek(pci::kCommand, 2));
  }
  IrqMode wanted_mode() const;
  void settle();
  void move_bars(bool only_unmap);
  void settle_interrupts();
  void take_down(IrqMode mode);
  void drop_interrupts();
  void apply_msi(bool enable);
  void forward_controls(IrqMode ending);
  void forward_command();
  void function_level_reset();
  void silence_device();
  void reread_config();
  void complain(const char* what, const Result<void>& outcome);

  vfio_user::Client& client_;
  const Machine machine_;
  const VfioFunctionOptions options_;
  const vfio_user::DeviceDescription description_;  // never changes: any thread
  mutable GuestLog log_;                            // any thread
  AccessCounters counters_;                         // any thread
  ClientIrqs irqs_;                                 // any thread
  ClientConfig remote_config_;                      // any thread
  Table table_{*this};                              // any thread
  PendingBits pending_bits_{*this};                 // any thread
  std::optional<MsiShape> msi_shape_;               // set by build(), then any thread
  std::uint32_t power_offset_ = 0;                  // likewise, and the next three
  std::uint32_t express_offset_ = 0;
  std::uint32_t msix_offset_ = 0;
  bool function_reset_ = false;

  // Serialises config accesses and MSI-X table accesses of the guest with each other and with reset
  // and the loss of the device. Held while the server is asked for a config register or an
  // interrupt set-up, never during a BAR access. Taken before the locks inside machine_'s services.
  mutable std::mutex mutex_;
  std::optional<BarRegisters> bar_registers_;  // under mutex_
  std::array<std::unique_ptr<Bar>, BarRegisters::kCount>
      bars_;                                  // set by build(); mapping under mutex_
  std::unique_ptr<VfioConfig> config_;        // under mutex_
  std::unique_ptr<Msix> msix_;                // under mutex_
  std::unique_ptr<Msi> msi_;                  // under mutex_
  std::unique_ptr<Intx> intx_;                // under mutex_
  IrqMode mode_ = IrqMode::none;              // under mutex_
  std::vector<WatchId> watches_;              // under mutex_
  std::vector<vfio_user::UniqueFd> signals_;  // ERR and REQ eventfds; closed after their watch
};

// --- set-up and the end
// ------------------------------------------------------------------------------

Result<void> VfioFunction::Impl::build() {
  const auto fail = [&](const Error& error) {
    return failure("device '" + options_.name + "': " + error.message, error.code);
  };
  auto registers = BarRegisters::create(description_.regions, description_.config);
  if (!registers) return fail(registers.error());
  bar_registers_ = std::move(*registers);

  ConfigRequest request;
  request.config = description_.config;
  request.regions = description_.regions;
  request.irqs = description_.irqs;
  request.bars = &*bar_registers_;
  request.ids = options_.ids;
  request.interrupt_pin = options_.intx_gsi.has_value();
  request.max_vectors = options_.max_vectors;
  auto plan = plan_config(request);
  if (!plan) return fail(plan.error());
  for (const std::string& remark : plan->remarks) log_.line(Severity::warning, remark);

  const auto maskable = [&](std::uint32_t index) { return description_.irqs.at(index).maskable; };
  if (plan->msix) {
    msix_ = std::make_unique<Msix>(*plan->msix, maskable(vfio_user::kIrqMsix), irqs_, machine_.msi);
  }
  if (plan->msi) {
    msi_ = std::make_unique<Msi>(plan->msi->vectors, maskable(vfio_user::kIrqMsi), irqs_,
                                 machine_.msi);
  }
  if (plan->intx) intx_ = std::make_unique<Intx>(*options_.intx_gsi, irqs_, machine_.intx);
  msi_shape_ = plan->msi;
  power_offset_ = plan->power_offset;
  express_offset_ = plan->express_offset;
  msix_offset_ = plan->msix_offset;
  function_reset_ = plan->function_reset;
  config_ =
      std::make_unique<VfioConfig>(*plan, description_.config, remote_config_, counters_, log_);
  for (const BarInfo& bar : bar_registers_->list()) build_bar(bar.region);
  return {};
}

void VfioFunction::Impl::build_bar(std::uint32_t index) {
  const vfio_user::Region& region = description_.regions[index];
  std::vector<Overlay> overlays;
  if (msix_) {
    const MsixShape& shape = msix_->shape();
    if (shape.table_region == index) {
      overlays.push_back({{shape.table_offset, shape.table_size()}, &table_});
    }
    if (shape.pba_region == index) {
      overlays.push_back({{shape.pba_offset, shape.pba_size()}, &pending_bits_});
    }
  }
  std::vector<AddressWindow> kept_out;
  for (const Overlay& overlay : overlays) kept_out.push_back(overlay.range);
  RegionPages pages;
  const bool ports = bar_registers_->info(index)->kind == BarInfo::Kind::io;
  if (!ports && options_.map_region.at(index)) pages = RegionPages::open(region, kept_out, log_);
  const RegionWindow::Shape shape{index, region.size, region.readable, region.writable};
  bars_[index] = std::make_unique<Bar>(std::move(pages), shape, std::move(overlays), *this);
}

void VfioFunction::Impl::watch_client() {
  const std::weak_ptr<Impl> weak = weak_from_this();
  {
    std::lock_guard lock(mutex_);
    watches_.push_back(machine_.loop.watch(
        client_.poll_fd(), EPOLLIN, [client = &client_](std::uint32_t) { client->service(); }));
    build_signals();
  }
  client_.set_down_handler([weak, loop = &machine_.loop](const vfio_user::Error&) {
    loop->post([weak] {
      if (const auto self = weak.lock()) self->device_lost();
    });
  });
}

void VfioFunction::Impl::build_signals() {
  if (options_.on_device_error) watch_signal(vfio_user::kIrqErr, options_.on_device_error);
  if (options_.on_removal_request) watch_signal(vfio_user::kIrqReq, options_.on_removal_request);
}

void VfioFunction::Impl::watch_signal(std::uint32_t index, std::function<void()> handler) {
  if (index >= description_.irqs.size() || !description_.irqs[index].eventfd ||
      description_.irqs[index].count == 0) {
    return;
  }
  vfio_user::UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) return;
  const int raw_fd = fd.get();
  const std::array<int, 1> fds{raw_fd};
  if (const auto armed = irqs_.arm(index, 0, fds); !armed) {
    return complain("arming the device's event interrupts", armed);
  }
  signals_.push_back(std::move(fd));
  watches_.push_back(
      machine_.loop.watch(raw_fd, EPOLLIN, [raw_fd, handler = std::move(handler)](std::uint32_t) {
        std::uint64_t times = 0;
        if (::read(raw_fd, &times, sizeof times) > 0) handler();
      }));
}

void VfioFunction::Impl::shut_down() {
  client_.set_down_handler({});
  std::vector<WatchId> watches;
  {
    std::lock_guard lock(mutex_);
    watches = std::exchange(watches_, {});
  }
  for (const WatchId watch : watches) machine_.loop.unwatch(watch);
  std::lock_guard lock(mutex_);
  drop_interrupts();
  for (auto& bar : bars_) {
    if (bar) bar->mapping.reset();
  }
}

// On the event loop, once. Every call of the client fails at once from here on, so nobody holds
// mutex_ for long.
void VfioFunction::Impl::device_lost() {
  std::vector<WatchId> watches;
  {
    std::lock_guard lock(mutex_);
    watches = std::exchange(watches_, {});
    drop_interrupts();
    for (auto& bar : bars_) {
      if (bar && bar->mapping) bar->mapping->move(std::nullopt);
    }
  }
  for (const WatchId watch : watches) machine_.loop.unwatch(watch);
  if (options_.on_lost) options_.on_lost(client_.death());
}

Result<void> VfioFunction::Impl::place_bars(BarAllocator& allocator) {
  std::lock_guard lock(mutex_);
  if (auto placed = bar_registers_->place(allocator); !placed) {
    return failure("device '" + options_.name + "': " + placed.error().message);
  }
  for (const BarInfo& info : bar_registers_->list()) {
    Bar& bar = *bars_[info.region];
    bar.mapping.emplace(info, bar.window, bar.pages, machine_.bus, machine_.pages, log_);
  }
  return {};
}

// --- configuration space
// -----------------------------------------------------------------------------

std::uint32_t VfioFunction::Impl::config_read(std::uint32_t reg, std::uint32_t size) {
  if (!client_.alive()) return all_ones(size);
  std::lock_guard lock(mutex_);
  if (BarRegisters::owns(reg)) return bar_registers_->read(reg, size);
  if (msi_ && msi_shape_->maskable && touches(reg, size, msi_shape_->pending_register(), 4)) {
    config_->poke(msi_shape_->pending_register(), 4, msi_->pending());
  }
  return config_->read(reg, size);
}

void VfioFunction::Impl::config_write(std::uint32_t reg, std::uint32_t size, std::uint32_t value) {
  if (!client_.alive()) return;
  std::lock_guard lock(mutex_);
  if (BarRegisters::owns(reg)) {
    bar_registers_->write(reg, size, value);
    return move_bars(false);
  }
  config_->write(reg, size, value);
  const std::uint32_t control = express_offset_ + pci::express::kDeviceControl;
  if (function_reset_ && touches(reg, size, control, 2) &&
      (config_->peek(control, 2) & pci::express::kFunctionReset) != 0) {
    return function_level_reset();
  }
  settle();
}

// Brings interrupts, BARs and the server's registers in line with the shadow. Closing comes first,
// then the server learns, then opening: nothing reaches a device that does not expect it yet.
void VfioFunction::Impl::settle() {
  move_bars(true);
  settle_interrupts();
  if (power_offset_ != 0) {
    const std::uint32_t control = power_offset_ + pci::pm::kControl;
    config_->forward(control,
                     static_cast<std::uint16_t>((config_->held(control) & ~pci::pm::kStateMask) |
                                                (config_->peek(control, 2) & pci::pm::kStateMask)));
  }
  forward_command();
  move_bars(false);
}

void VfioFunction::Impl::move_bars(bool only_unmap) {
  const std::uint16_t now = command();
  for (std::uint32_t region = 0; region < bars_.size(); ++region) {
    Bar* const bar = bars_[region].get();
    if (bar == nullptr || !bar->mapping) continue;
    const auto base = bar_registers_->decoded(region, now);
    if (only_unmap && base) continue;
    bar->mapping->move(base);
  }
}

// Guests turn decoding off while they size a BAR and on again after it. No access can reach the
// server in between, so it need not know: a write that only clears decode bits stays here.
void VfioFunction::Impl::forward_command() {
  const std::uint16_t held = config_->held(pci::kCommand) & kForwarded;
  const std::uint16_t wanted = command() & kForwarded;
  const bool only_clears_decode = (held & wanted) == wanted && ((held ^ wanted) & ~kDecode) == 0;
  if (!only_clears_decode) config_->forward(pci::kCommand, wanted);
}

void VfioFunction::Impl::function_level_reset() {
  const std::uint32_t control = express_offset_ + pci::express::kDeviceControl;
  config_->poke(control, 2, config_->peek(control, 2) & ~pci::express::kFunctionReset);
  const auto order =
      static_cast<std::uint16_t>(config_->held(control) | pci::express::kFunctionReset);
  silence_device();
  config_->poke(pci::kCommand, 2, 0);
  move_bars(true);
  config_->send(control, order);
  reread_config();
  config_->forward(pci::kCommand, 0);  // for a server that left it as it was
}

// --- interrupts
// --------------------------------------------------------------------------------------

// MSI-X wins over MSI, MSI over INTx (PCI 3.0 §6.8.1.3, §6.8.2.3). INTx is armed once the guest has
// switched the device on, and then stays; INTX_DISABLE only disconnects it.
IrqMode VfioFunction::Impl::wanted_mode() const {
  if (msix_ && (config_->peek(msix_offset_ + pci::msix::kControl, 2) & pci::msix::kEnable) != 0) {
    return IrqMode::msix;
  }
  if (msi_ &&
      (config_->peek(msi_shape_->offset + pci::msi::kControl, 2) & pci::msi::kEnable) != 0) {
    return IrqMode::msi;
  }
  if (!intx_) return IrqMode::none;
  const bool on = (command() & (kDecode | kMaster)) != 0 && (command() & kIntxDisable) == 0;
  return on || intx_->armed() ? IrqMode::intx : IrqMode::none;
}

// Servers keep one set of eventfds for all three kinds: the old kind is disabled before the new one
// is armed. And eventfds are armed before the server's config space says that they may be used,
// disabled after it says that they may not.
void VfioFunction::Impl::settle_interrupts() {
  const IrqMode mode = wanted_mode();
  if (mode != mode_) {
    if (mode_ == IrqMode::msix || mode_ == IrqMode::msi) forward_controls(mode_);
    take_down(mode_);
    mode_ = mode;
  }
  switch (mode) {
    case IrqMode::msix: {
      const std::uint32_t control = config_->peek(msix_offset_ + pci::msix::kControl, 2);
      complain("setting up MSI-X",
               msix_->set_control(true, (control & pci::msix::kFunctionMask) != 0));
      break;
    }
    case IrqMode::msi:
      apply_msi(true);
      break;
    case IrqMode::intx:
      complain("arming INTx", intx_->arm());
      complain("connecting INTx", intx_->set_connected((command() & kIntxDisable) == 0));
      break;
    case IrqMode::none:
      break;
  }
  forward_controls(IrqMode::none);
}

void VfioFunction::Impl::take_down(IrqMode mode) {
  switch (mode) {
    case IrqMode::msix:
      return complain("disabling MSI-X", msix_->set_control(false, false));
    case IrqMode::msi:
      return apply_msi(false);
    case IrqMode::intx:
      return complain("disabling INTx", intx_->disarm());
    case IrqMode::none:
      return;
  }
}

void VfioFunction::Impl::drop_interrupts() {
  if (msix_) msix_->drop();
  if (msi_) msi_->drop();
  if (intx_) intx_->drop();
}

void VfioFunction::Impl::apply_msi(bool enable) {
  const MsiShape& shape = *msi_shape_;
  const std::uint32_t control = config_->peek(shape.offset + pci::msi::kControl, 2);
  MsiMessage message;
  message.address = config_->peek(shape.offset + pci::msi::kAddress, 4);
  if (shape.wide) {
    message.address |= std::uint64_t{config_->peek(shape.offset + pci::msi::kAddressHigh, 4)} << 32;
  }
  message.data = config_->peek(shape.data_register(), 2);
  const std::uint32_t mask = shape.maskable ? config_->peek(shape.mask_register(), 4) : 0;
  const std::uint32_t granted = 1U << std::min((control & pci::msi::kEnabledMask) >> 4, 5U);
  complain("setting up MSI", msi_->set(enable, granted, message, mask));
}

// The enable and mask bits as the guest has them, the rest as the server had it; without the enable
// bit of the mode that is about to end.
void VfioFunction::Impl::forward_controls(IrqMode ending) {
  const auto merge = [&](std::uint32_t reg, std::uint32_t bits, std::uint32_t cleared) {
    const std::uint32_t value = (config_->held(reg) & ~bits) | (config_->peek(reg, 2) & bits);
    config_->forward(reg, static_cast<std::uint16_t>(value & ~cleared));
  };
  if (msi_ && ending != IrqMode::msix) {
    merge(msi_shape_->offset + pci::msi::kControl, pci::msi::kEnable | pci::msi::kEnabledMask,
          ending == IrqMode::msi ? pci::msi::kEnable : 0U);
  }
  if (msix_ && ending != IrqMode::msi) {
    merge(msix_offset_ + pci::msix::kControl, pci::msix::kEnable | pci::msix::kFunctionMask,
          ending == IrqMode::msix ? pci::msix::kEnable : 0U);
  }
}

void VfioFunction::Impl::complain(const char* what, const Result<void>& outcome) {
  if (outcome || !client_.alive()) return;
  log_.line(Severity::warning, std::string(what) + " failed: " + outcome.error().message);
}

// --- reset
// -------------------------------------------------------------------------------------------

// No interrupt is armed any more and no enable bit is set, here and in the server.
void VfioFunction::Impl::silence_device() {
  if (msix_) {
    const std::uint32_t reg = msix_offset_ + pci::msix::kControl;
    config_->poke(reg, 2, config_->peek(reg, 2) & pci::msix::kSizeMask);
  }
  if (msi_) {
    const std::uint32_t reg = msi_shape_->offset + pci::msi::kControl;
    const std::uint32_t clear = pci::msi::kEnable | pci::msi::kEnabledMask;
    config_->poke(reg, 2, config_->peek(reg, 2) & ~clear);
  }
  forward_controls(mode_);
  take_down(std::exchange(mode_, IrqMode::none));
  forward_controls(IrqMode::none);
  if (msix_) complain("resetting MSI-X", msix_->reset());
}

void VfioFunction::Impl::reread_config() {
  std::vector<std::byte> raw(description_.config.size());
  const auto got = client_.region_read(vfio_user::kRegionConfig, 0, raw);
  if (got && *got == raw.size()) config_->refresh_held(raw);
}

void VfioFunction::Impl::reset() {
  std::lock_guard lock(mutex_);
  if (!client_.alive()) return;
  silence_device();
  config_->reset_shadow();
  bar_registers_->reset();
  move_bars(false);
  config_->forward(pci::kCommand, 0);
  if (power_offset_ != 0) {
    const std::uint32_t control = power_offset_ + pci::pm::kControl;
    config_->forward(control,
                     static_cast<std::uint16_t>(config_->held(control) & ~pci::pm::kStateMask));
  }
  complain("DEVICE_RESET", client_.reset().map_error(converted));
  reread_config();
}

// --- parts of a BAR
// ----------------------------------------------------------------------------------

void VfioFunction::Impl::Table::read(std::uint64_t offset, std::span<std::byte> data) {
  std::ranges::fill(data, std::byte{0xff});
  if (!owner_.client_.alive()) return;
  std::lock_guard lock(owner_.mutex_);
  owner_.msix_->read_table(offset, data);
}

void VfioFunction::Impl::Table::write(std::uint64_t offset, std::span<const std::byte> data) {
  if (!owner_.client_.alive()) return;
  std::lock_guard lock(owner_.mutex_);
  owner_.complain("setting up an MSI-X vector", owner_.msix_->write_table(offset, data));
}

// A vector may be pending here, signalled while it was masked, or in the server, which may have
// kept the signal to itself.
void VfioFunction::Impl::PendingBits::read(std::uint64_t offset, std::span<std::byte> data) {
  std::ranges::fill(data, std::byte{0xff});
  if (!owner_.client_.alive()) return;
  const MsixShape& shape = owner_.msix_->shape();
  {
    std::lock_guard lock(owner_.mutex_);
    owner_.msix_->read_pba(offset, data);
  }
  if (!ask_server_.load(std::memory_order_relaxed) || data.size() > 8 ||
      !owner_.description_.regions[shape.pba_region].readable) {
    return;
  }
  std::array<std::byte, 8> remote{};
  const auto into = std::span(remote).first(data.size());
  const auto got = owner_.client_.region_read(shape.pba_region, shape.pba_offset + offset, into);
  if (!got || *got != into.size()) {
    ask_server_.store(false, std::memory_order_relaxed);
    return;
  }
  for (std::size_t i = 0; i < data.size(); ++i) data[i] |= remote[i];
}

// --- what others ask
// ---------------------------------------------------------------------------------

std::vector<BarInfo> VfioFunction::Impl::bars() const {
  std::lock_guard lock(mutex_);
  auto out = bar_registers_->list();
  for (BarInfo& bar : out) bar.mapped = bars_[bar.region]->pages.total();
  return out;
}

VfioFunctionCounters VfioFunction::Impl::counters() const {
  return {.bar_reads = counters_.bar_reads,
          .bar_writes = counters_.bar_writes,
          .access_errors = counters_.access_errors,
          .config_forwards = counters_.config_forwards,
          .config_errors = counters_.config_errors,
          .intx_unmasks = intx_ ? intx_->unmasks() : 0,
          .lines_suppressed = log_.suppressed()};
}

Result<std::unique_ptr<VfioFunction>> VfioFunction::create(vfio_user::Client& client,
                                                           vfio_user::DeviceDescription description,
                                                           const Machine& machine,
                                                           VfioFunctionOptions options) {
  auto impl = std::make_shared<Impl>(client, std::move(description), machine, std::move(options));
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
