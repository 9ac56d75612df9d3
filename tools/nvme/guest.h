// The two things a controller needs of the machine it sits in, so that it can be driven by a
// socket or by a test. Every call comes from the thread that drives the controller.
#pragma once

#include <cstddef>
#include <span>

#include "tools/nvme/spec.h"

namespace outboard::nvme {

// Which way the controller moves data in guest memory.
enum class Access { read, write };

class GuestDma {
 public:
  virtual ~GuestDma() = default;

  // Host memory behind [address, address + size) when all of it lies in one mapped window with
  // that permission, else empty. Valid until the window goes (Controller::before_window_change).
  virtual std::span<std::byte> translate(u64 address, u64 size, Access access) = 0;

  // Copies to or from any windows, mapped or not. False: some byte is in no window, or the
  // permission is lacking; memory may then be partly written.
  virtual bool read(u64 address, std::span<std::byte> into) = 0;
  virtual bool write(u64 address, std::span<const std::byte> from) = 0;
};

class Interrupts {
 public:
  virtual ~Interrupts() = default;

  // True when vectors are message-signalled; otherwise the pin is used.
  virtual bool message_signalled() const = 0;
  // One message of a vector, an edge.
  virtual void raise(u16 vector) = 0;
  // The level of the pin; called with every change and perhaps without one.
  virtual void set_pin(bool asserted) = 0;
};

}  // namespace outboard::nvme
