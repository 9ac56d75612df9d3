// The message-signalled vectors of one function: an eventfd, a GSI and a route for each vector in
// use, none for the others.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "devices/device_irqs.h"
#include "devices/interrupts.h"
#include "devices/result.h"
#include "vfio_user/unique_fd.h"

namespace outboard::devices {

// What the guest wants of a vector.
struct VectorState {
  bool used = false;  // programmed: the device may signal it
  bool masked = true;
  MsiMessage message;
};

// Not thread-safe; the owner has a lock. A vector is armed (the server holds its eventfd) from its
// first use until disable(). It is connected (the eventfd reaches the guest) while it is unmasked;
// masked, the eventfd keeps the count, and connecting it again delivers one interrupt.
class VectorSet final {
 public:
  // irq_index as in DeviceIrqs; server_masks: the server takes mask and unmask messages for
  // vectors; requester as in MsiRouter::Route.
  VectorSet(std::uint32_t irq_index, std::uint32_t count, bool server_masks, DeviceIrqs& device,
            MsiRouter& router, std::uint16_t requester);
  ~VectorSet();  // disconnects; sends nothing
  VectorSet(const VectorSet&) = delete;
  VectorSet& operator=(const VectorSet&) = delete;

  std::uint32_t count() const { return static_cast<std::uint32_t>(vectors_.size()); }

  // Brings vectors first .. first+count-1 to the states given: arms those newly used in runs, sets
  // all changed routes of unmasked vectors in one call, then connects. What fails is left undone
  // and reported; the next update tries again.
  Result<void> update(std::uint32_t first, std::uint32_t count,
                      const std::function<VectorState(std::uint32_t)>& wanted);

  // Nothing armed, connected or routed any more; the server is told when anything was armed.
  Result<void> disable();
  // The same for a server that is gone: nothing is sent.
  void drop();

  // As if the device had signalled every armed vector once.
  void signal_all() const;

  // Signalled while masked and not delivered yet: the PBA bit.
  bool pending(std::uint32_t vector) const;
  std::uint32_t armed_count() const;

 private:
  struct Vector {
    vfio_user::UniqueFd eventfd;  // valid while armed
    std::uint32_t gsi = 0;
    bool has_gsi = false;
    bool routed = false;  // `message` is the GSI's route
    bool connected = false;
    bool server_masked = false;
    MsiMessage message;
  };

  using Wanted = std::function<VectorState(std::uint32_t)>;
  Result<void> arm_new(std::uint32_t first, std::uint32_t end, const Wanted& wanted);
  Result<void> arm_run(std::uint32_t first, std::uint32_t end);
  void disconnect_masked(std::uint32_t first, std::uint32_t end, const Wanted& wanted);
  Result<void> route_unmasked(std::uint32_t first, std::uint32_t end, const Wanted& wanted);
  Result<void> connect_unmasked(std::uint32_t first, std::uint32_t end, const Wanted& wanted);
  void tell_server_masks(std::uint32_t first, std::uint32_t end, const Wanted& wanted);
  void release(Vector& vector);

  const std::uint32_t irq_index_;
  const bool server_masks_;
  DeviceIrqs& device_;
  MsiRouter& router_;
  const std::uint16_t requester_;
  std::vector<Vector> vectors_;
};

}  // namespace outboard::devices
