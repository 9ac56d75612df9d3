#include "devices/function_interrupts.h"

#include <algorithm>
#include <string>
#include <utility>

#include "devices/pci_registers.h"

namespace outboard::devices {

using pci::command::kDecode;
using pci::command::kIntxDisable;
using pci::command::kMaster;

FunctionInterrupts::FunctionInterrupts(const ConfigPlan& plan, std::span<const vfio_user::Irq> irqs,
                                       std::optional<std::uint32_t> intx_gsi,
                                       const Services& services, VfioConfig& config)
    : config_(config),
      log_(services.log),
      msi_shape_(plan.msi),
      msix_control_(plan.msix_offset + pci::msix::kControl),
      msi_control_(plan.msi ? plan.msi->offset + pci::msi::kControl : 0) {
  if (plan.msix) {
    msix_ = std::make_unique<Msix>(*plan.msix, irqs[vfio_user::kIrqMsix].maskable, services.device,
                                   services.msi, services.requester);
  }
  if (plan.msi) {
    msi_ = std::make_unique<Msi>(plan.msi->vectors, irqs[vfio_user::kIrqMsi].maskable,
                                 services.device, services.msi, services.requester);
  }
  if (plan.intx && intx_gsi) {
    intx_ = std::make_unique<Intx>(*intx_gsi, services.device, services.intx,
                                   services.intx_thread_started);
  }
}

// MSI-X wins over MSI, MSI over INTx (PCI 3.0 §6.8.1.3, §6.8.2.3). INTx is armed once the guest has
// switched the device on, and then stays; INTX_DISABLE only disconnects it.
FunctionInterrupts::Mode FunctionInterrupts::wanted() const {
  if (msix_ && (config_.peek(msix_control_, 2) & pci::msix::kEnable) != 0) return Mode::msix;
  if (msi_ && (config_.peek(msi_control_, 2) & pci::msi::kEnable) != 0) return Mode::msi;
  if (!intx_) return Mode::none;
  const std::uint32_t command = config_.peek(pci::kCommand, 2);
  const bool on = (command & (kDecode | kMaster)) != 0 && (command & kIntxDisable) == 0;
  return on || intx_->armed() ? Mode::intx : Mode::none;
}

// Servers keep one set of eventfds for all three kinds: the old kind is disabled before the new one
// is armed. And eventfds are armed before the server's config space says that they may be used,
// disabled after it says that they may not.
void FunctionInterrupts::settle() {
  const Mode mode = wanted();
  if (mode != mode_) {
    if (mode_ == Mode::msix || mode_ == Mode::msi) forward_controls(mode_);
    take_down(mode_);
    mode_ = mode;
  }
  switch (mode) {
    case Mode::msix: {
      const bool masked = (config_.peek(msix_control_, 2) & pci::msix::kFunctionMask) != 0;
      complain("setting up MSI-X", msix_->set_control(true, masked));
      break;
    }
    case Mode::msi:
      apply_msi(true);
      break;
    case Mode::intx: {
      const bool connected = (config_.peek(pci::kCommand, 2) & kIntxDisable) == 0;
      complain("arming INTx", intx_->arm());
      complain("connecting INTx", intx_->set_connected(connected));
      break;
    }
    case Mode::none:
      break;
  }
  forward_controls(Mode::none);
}

void FunctionInterrupts::silence() {
  if (msix_) {
    config_.poke(msix_control_, 2, config_.peek(msix_control_, 2) & pci::msix::kSizeMask);
  }
  if (msi_) {
    const std::uint32_t clear = pci::msi::kEnable | pci::msi::kEnabledMask;
    config_.poke(msi_control_, 2, config_.peek(msi_control_, 2) & ~clear);
  }
  forward_controls(Mode::none);
  take_down(std::exchange(mode_, Mode::none));
  if (msix_) complain("resetting MSI-X", msix_->reset());
}

void FunctionInterrupts::drop() {
  if (msix_) msix_->drop();
  if (msi_) msi_->drop();
  if (intx_) intx_->drop();
}

void FunctionInterrupts::restore() {
  if (mode_ == Mode::msix) complain("setting up MSI-X again", msix_->rearm());
  settle();
}

void FunctionInterrupts::signal_all() const {
  if (mode_ == Mode::msix) msix_->signal_all();
  if (mode_ == Mode::msi) msi_->signal_all();
  if (mode_ == Mode::intx) intx_->signal();
}

void FunctionInterrupts::refresh_pending(std::uint32_t reg, std::uint32_t size) {
  if (!msi_ || !msi_shape_->maskable) return;
  const std::uint32_t at = msi_shape_->pending_register();
  if (reg < at + 4 && at < reg + size) config_.poke(at, 4, msi_->pending());
}

void FunctionInterrupts::write_table(std::uint64_t offset, std::span<const std::byte> data) {
  complain("setting up an MSI-X vector", msix_->write_table(offset, data));
}

void FunctionInterrupts::take_down(Mode mode) {
  switch (mode) {
    case Mode::msix:
      return complain("disabling MSI-X", msix_->set_control(false, false));
    case Mode::msi:
      return apply_msi(false);
    case Mode::intx:
      return complain("disabling INTx", intx_->disarm());
    case Mode::none:
      return;
  }
}

void FunctionInterrupts::apply_msi(bool enable) {
  const MsiShape& shape = *msi_shape_;
  MsiMessage message;
  message.address = config_.peek(shape.offset + pci::msi::kAddress, 4);
  if (shape.wide) {
    const std::uint32_t high = shape.offset + pci::msi::kAddressHigh;
    message.address |= std::uint64_t{config_.peek(high, 4)} << 32;
  }
  message.data = config_.peek(shape.data_register(), 2);
  const std::uint32_t mask = shape.maskable ? config_.peek(shape.mask_register(), 4) : 0;
  const std::uint32_t log2 = (config_.peek(msi_control_, 2) & pci::msi::kEnabledMask) >> 4;
  complain("setting up MSI", msi_->set(enable, 1U << std::min(log2, 5U), message, mask));
}

// The server's control words take the enable and mask bits as the guest has them; without the
// enable bit of the mode that is about to end, and then nothing of the one that follows.
void FunctionInterrupts::forward_controls(Mode ending) {
  const auto merge = [&](std::uint32_t reg, std::uint32_t bits, std::uint32_t cleared) {
    const std::uint32_t value = (config_.held(reg) & ~bits) | (config_.peek(reg, 2) & bits);
    config_.forward(reg, static_cast<std::uint16_t>(value & ~cleared));
  };
  if (msi_ && ending != Mode::msix) {
    merge(msi_control_, pci::msi::kEnable | pci::msi::kEnabledMask,
          ending == Mode::msi ? pci::msi::kEnable : 0U);
  }
  if (msix_ && ending != Mode::msi) {
    merge(msix_control_, pci::msix::kEnable | pci::msix::kFunctionMask,
          ending == Mode::msix ? pci::msix::kEnable : 0U);
  }
}

void FunctionInterrupts::complain(const char* what, const Result<void>& outcome) {
  if (!outcome && !outcome.error().lost) {
    log_.line(Severity::warning, std::string(what) + " failed: " + outcome.error().message);
  }
}

}  // namespace outboard::devices
