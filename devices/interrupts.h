// How devices interrupt the guest. Declared here, implemented by the VMM (in-kernel irqchip, GSI
// routing, irqfd). Every member may be called from any thread, also from a vCPU inside an access.
#pragma once

#include <cstdint>
#include <span>

#include "devices/result.h"

namespace outboard::devices {

// The write a message-signalled interrupt makes (PCI 3.0 §6.8.1).
struct MsiMessage {
  std::uint64_t address = 0;
  std::uint32_t data = 0;
  friend constexpr bool operator==(const MsiMessage&, const MsiMessage&) = default;
};

// Message-signalled interrupts: an eventfd connected to a GSI whose route is an MSI message.
class MsiRouter {
 public:
  struct Route {
    std::uint32_t gsi = 0;
    MsiMessage message;
    // Who writes the message: bus, device, function (PCIe 4.0 §2.2.6.2). Some interrupt controllers
    // (an ITS) tell devices apart by it.
    std::uint16_t requester = 0;
    friend constexpr bool operator==(const Route&, const Route&) = default;
  };

  virtual ~MsiRouter() = default;

  // A GSI without a route. Fails when the irqchip has no more.
  virtual Result<std::uint32_t> allocate_gsi() = 0;
  // Forgets the GSI and its route. No eventfd is connected to it any more.
  virtual void free_gsi(std::uint32_t gsi) = 0;
  // Sets or replaces the routes of these GSIs in one step; costs nothing when none differs.
  virtual Result<void> set_routes(std::span<const Route> routes) = 0;
  // From now on a signal of the eventfd raises the GSI. A count the eventfd already holds raises it
  // once. The caller keeps ownership of the fd.
  virtual Result<void> connect(int eventfd, std::uint32_t gsi) = 0;
  // The same, for a router that wants to know which vector of its function it is.
  virtual Result<void> connect_vector(std::uint32_t /*vector*/, int eventfd, std::uint32_t gsi) {
    return connect(eventfd, gsi);
  }
  // The eventfd keeps its count from now on.
  virtual void disconnect(int eventfd, std::uint32_t gsi) = 0;
};

// Level-triggered lines: a signal of trigger_fd asserts the GSI; the guest's EOI deasserts it and
// signals resample_fd. The caller keeps ownership of both.
class IntxRouter {
 public:
  virtual ~IntxRouter() = default;
  virtual Result<void> connect(std::uint32_t gsi, int trigger_fd, int resample_fd) = 0;
  // Deasserts the line if it was asserted.
  virtual void disconnect(std::uint32_t gsi, int trigger_fd) = 0;
};

// One input of the irqchip driven by the VMM itself (UART, power button). set() is idempotent.
class InterruptLine {
 public:
  virtual ~InterruptLine() = default;
  virtual void set(bool level) = 0;
};

}  // namespace outboard::devices
