// The guest's accesses to the MSI-X table and to the pending bit array, as parts of a BAR.
#pragma once

#include <atomic>
#include <mutex>

#include "devices/bus.h"
#include "devices/device_link.h"
#include "devices/function_interrupts.h"

namespace outboard::devices {

// Any vCPU thread. mutex is the function's; interrupts has MSI-X.
class MsixTableWindow final : public BusDevice {
 public:
  MsixTableWindow(FunctionInterrupts& interrupts, std::mutex& mutex, DeviceLink& link)
      : interrupts_(interrupts), mutex_(mutex), link_(link) {}

  void read(std::uint64_t offset, std::span<std::byte> data) override;
  void write(std::uint64_t offset, std::span<const std::byte> data) override;

 private:
  FunctionInterrupts& interrupts_;  // under mutex_
  std::mutex& mutex_;
  DeviceLink& link_;
};

// Any vCPU thread; the server is asked with no lock held. A vector may be pending here, signalled
// while it was masked, or in the server, which may have kept the signal to itself. Writes are
// dropped.
class PendingBitsWindow final : public BusDevice {
 public:
  // server_has_pba: the region that holds the array can be read.
  PendingBitsWindow(FunctionInterrupts& interrupts, std::mutex& mutex, DeviceLink& link,
                    bool server_has_pba)
      : interrupts_(interrupts), mutex_(mutex), link_(link), ask_server_(server_has_pba) {}

  void read(std::uint64_t offset, std::span<std::byte> data) override;
  void write(std::uint64_t, std::span<const std::byte>) override {}

 private:
  FunctionInterrupts& interrupts_;  // under mutex_; its MsixShape never changes
  std::mutex& mutex_;
  DeviceLink& link_;
  std::atomic<bool> ask_server_;  // any vCPU; false from the server's first refusal on
};

}  // namespace outboard::devices
