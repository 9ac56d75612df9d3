#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vfio_user/result.h"
#include "vfio_user/server.h"
#include "vfio_user/unique_fd.h"
#include "vfio_user/wire.h"

namespace outboard::vfio_user {

/// The interrupts of one client: its eventfds, what is masked, and what waits for being unmasked.
/// Owned by the session, used by the server's thread only.
class IrqTable final {
 public:
  explicit IrqTable(const std::array<ServerIrq, wire::kPciIrqs>& irqs);

  /// What a DEVICE_SET_IRQS changed, for the device model to be told.
  struct Change {
    bool armed = false;     ///< eventfds came or went
    bool unmasked = false;  ///< vectors start..start+count-1, or some of them
  };

  /// Carries out a DEVICE_SET_IRQS that parse_set_irqs() accepted, except eventfds with the actions
  /// mask and unmask, which only the caller's event loop can watch. Nothing is changed on an error,
  /// whose code is for the reply: EINVAL. `signalled` counts eventfds written.
  Result<Change> set(const wire::SetIrqs& request, std::span<const std::byte> bools,
                     std::vector<UniqueFd> fds, std::uint64_t& signalled);

  /// Whether [start, start + count) are vectors of the index.
  [[nodiscard]] Result<void> check_range(const wire::SetIrqs& request) const;
  /// Makes an eventfd safe to be written to by a thread that must not block; EINVAL if it is none.
  static Result<void> check_eventfd(int fd);

  void mask(std::uint32_t index, std::uint32_t vector);
  /// Signals what was pending, unless the index is masked by being raised: then the device raises
  /// again if it still has a reason.
  void unmask(std::uint32_t index, std::uint32_t vector, std::uint64_t& signalled);

  /// See Server::trigger().
  int trigger(std::uint32_t index, std::uint32_t vector, std::uint64_t& signalled);
  [[nodiscard]] bool armed(std::uint32_t index, std::uint32_t vector) const;

  /// DEVICE_RESET: nothing is pending, and nothing masked by having been raised.
  void reset();

 private:
  struct Vector {
    UniqueFd eventfd;
    bool masked = false;
    bool pending = false;
  };
  struct Index {
    std::uint32_t flags = 0;
    std::vector<Vector> vectors;
  };

  Vector* find(std::uint32_t index, std::uint32_t vector);
  [[nodiscard]] const Vector* find(std::uint32_t index, std::uint32_t vector) const;
  static void signal(Vector& vector, std::uint64_t& signalled);

  std::array<Index, wire::kPciIrqs> indexes_;
};

}  // namespace outboard::vfio_user
