#pragma once

// Brings a device back whose server has died: a thread that sleeps until its function is lost, then
// tries to reach a server again, with back-off, until one is there, another device is, or the
// deadline has passed.
//
// Owned by the device it belongs to. Made and destroyed on the main thread; the function outlives
// it.

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "devices/vfio_function.h"
#include "vmm/device_connect.h"
#include "vmm/machine_config.h"

namespace outboard::vmm {

// How a function says that it has lost its server. There before the function and the thread are.
class LossSignal {
 public:
  // Any thread, also inside an access.
  void raise();
  void stop();
  // Waits for a raise(), of before or to come. False: stop() was called.
  bool wait();
  // Waits that long. False: stop() was called.
  bool pause(std::chrono::milliseconds time);

 private:
  std::mutex mutex_;  // a leaf
  std::condition_variable changed_;
  bool raised_ = false;
  bool stopped_ = false;
};

class Reconnector {
 public:
  // Where the server's socket is; starts the server again where that is outboard's business.
  // `insist`: one that runs and does not serve is to be ended first. Gives up when `cancel_fd`
  // becomes readable.
  using FindSocket = std::function<vfio_user::Result<std::string>(const DeviceConfig&, bool insist,
                                                                  int cancel_fd)>;
  struct Parts {
    const DeviceConfig& config;
    devices::VfioFunction& function;
    const GuestMemory& memory;
    vfio_user::MessageObserver* observer = nullptr;  // may be none
    FindSocket find_socket;                          // empty: the configuration says where
    Sandbox* sandbox = nullptr;                      // the thread enters it; may be none
  };

  Reconnector(Parts parts, std::shared_ptr<LossSignal> loss);
  Reconnector(const Reconnector&) = delete;
  Reconnector& operator=(const Reconnector&) = delete;
  ~Reconnector();  // cancel(), and waits for the thread

  // Ends what is under way, and the thread. Any thread.
  void cancel();

 private:
  using Clock = std::chrono::steady_clock;

  void run();
  bool recover();  // false: cancelled, or given up
  devices::Reconnected attempt(bool insist);
  std::chrono::milliseconds delay_after(std::chrono::milliseconds delay, bool holding) const;

  const Parts parts_;
  const std::shared_ptr<LossSignal> loss_;
  ConnectCancel cancel_;
  std::chrono::milliseconds delay_{0};  // before the next attempt
  Clock::time_point back_since_;        // the connection in use
  std::thread thread_;
};

}  // namespace outboard::vmm
