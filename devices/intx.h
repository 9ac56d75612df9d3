// INTA# of a function: a level-triggered line through a trigger and a resample eventfd.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>

#include "devices/device_irqs.h"
#include "devices/interrupts.h"
#include "vfio_user/unique_fd.h"

namespace outboard::devices {

// The owner's lock guards arm(), connect(), disconnect() and disarm(). A thread of its own, from
// the first arm() on, turns each EOI of the guest into one unmask message, so that a slow server
// holds up neither a vCPU nor the event loop.
class Intx final {
 public:
  // The thread calls `started` before anything else, unless it is empty.
  Intx(std::uint32_t gsi, DeviceIrqs& device, IntxRouter& router,
       std::function<void()> started = {});
  // Joins the thread: close the client first, so that it waits for nobody.
  ~Intx();
  Intx(const Intx&) = delete;
  Intx& operator=(const Intx&) = delete;

  bool armed() const { return armed_; }

  // The server gets the trigger eventfd. Idempotent.
  Result<void> arm();
  // Connected, a trigger reaches the guest; disconnected (COMMAND.INTX_DISABLE), the eventfd keeps
  // it.
  Result<void> set_connected(bool connected);
  // Disconnected, and the server is told. Idempotent.
  Result<void> disarm();
  // The server is gone: nothing is sent.
  void drop();
  // As if the device had raised the line; nothing unless it is armed.
  void signal() const;

  std::uint64_t unmasks() const { return unmasks_.load(std::memory_order_relaxed); }

 private:
  Result<void> open();
  void serve_eois();

  const std::uint32_t gsi_;
  DeviceIrqs& device_;
  IntxRouter& router_;
  const std::function<void()> started_;
  vfio_user::UniqueFd trigger_;   // written by the server, read by KVM
  vfio_user::UniqueFd resample_;  // written by KVM at EOI, read by thread_; opened before it starts
  vfio_user::UniqueFd stop_;      // written by the destructor, read by thread_
  std::thread thread_;
  std::atomic<bool> deliver_{false};       // thread_ sends unmasks; set under the owner's lock
  std::atomic<std::uint64_t> unmasks_{0};  // written by thread_
  bool armed_ = false;
  bool connected_ = false;
  bool was_connected_ = false;  // at some time since it was armed
};

}  // namespace outboard::devices
