// Guest stores that signal an eventfd inside the kernel. Declared here, implemented by the VMM
// (KVM_IOEVENTFD). Both members may be called from any thread.
#pragma once

#include <cstdint>
#include <optional>

#include "devices/bus.h"
#include "devices/result.h"

namespace outboard::devices {

class IoEvents {
 public:
  virtual ~IoEvents() = default;

  // Stores of exactly size bytes (0: any width) at base, of datamatch only when given, signal fd
  // and do not exit. Fails when the range is taken or the kernel refuses the width.
  virtual Result<void> attach(Space space, std::uint64_t base, std::uint32_t size,
                              std::optional<std::uint64_t> datamatch, int fd) = 0;
  // The arguments of the attach() to undo.
  virtual void detach(Space space, std::uint64_t base, std::uint32_t size,
                      std::optional<std::uint64_t> datamatch, int fd) = 0;
};

}  // namespace outboard::devices
