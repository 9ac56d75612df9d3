// The interrupts of one vfio-user function: which of INTx, MSI and MSI-X is in use, the switch
// between them, and the server's copy of their control words.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "devices/config_policy.h"
#include "devices/guest_log.h"
#include "devices/intx.h"
#include "devices/msi.h"
#include "devices/msix.h"
#include "devices/vfio_config.h"

namespace outboard::devices {

// Not thread-safe; the owner has a lock, and holds it while the server is asked. config outlives
// it.
class FunctionInterrupts final {
 public:
  struct Services {
    DeviceIrqs& device;
    MsiRouter& msi;
    IntxRouter& intx;
    GuestLog& log;
    std::uint16_t requester = 0;                     // as in MsiRouter::Route
    std::function<void()> intx_thread_started = {};  // see Intx
  };

  FunctionInterrupts(const ConfigPlan& plan, std::span<const vfio_user::Irq> irqs,
                     std::optional<std::uint32_t> intx_gsi, const Services& services,
                     VfioConfig& config);

  // After a guest's config write: brings everything in line with the shadow.
  void settle();
  // Nothing is armed any more and no enable bit is set, in the shadow and in the server; the MSI-X
  // table is as at power-on.
  void silence();
  // The server is gone, or will not be asked again: nothing is sent, nothing reaches the guest.
  void drop();
  // After drop(), with a server that has come back: what the guest has in use is armed and
  // connected again, and the server's control words follow.
  void restore();
  // As if the device had raised everything the guest has in use, once.
  void signal_all() const;
  // Before a guest's config read: puts MSI's pending bits where the read finds them.
  void refresh_pending(std::uint32_t reg, std::uint32_t size);

  // Present when the function has MSI-X.
  Msix* msix() { return msix_.get(); }
  bool msix_enabled() const { return mode_ == Mode::msix; }
  void write_table(std::uint64_t offset, std::span<const std::byte> data);
  std::uint64_t intx_unmasks() const { return intx_ ? intx_->unmasks() : 0; }

 private:
  enum class Mode { none, intx, msi, msix };

  Mode wanted() const;
  void take_down(Mode mode);
  void apply_msi(bool enable);
  void forward_controls(Mode ending);
  void complain(const char* what, const Result<void>& outcome);

  VfioConfig& config_;
  GuestLog& log_;
  const std::optional<MsiShape> msi_shape_;
  const std::uint32_t msix_control_;  // registers
  const std::uint32_t msi_control_;
  std::unique_ptr<Msix> msix_;
  std::unique_ptr<Msi> msi_;
  std::unique_ptr<Intx> intx_;
  Mode mode_ = Mode::none;
};

}  // namespace outboard::devices
