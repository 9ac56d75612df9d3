#pragma once

// One attempt to reach a device's server: connect, negotiate, map guest memory and ask what the
// device is. Blocks the calling thread, which is one of its own: at the start one a device
// (DeviceAttach), later the Reconnector's.

#include <memory>
#include <mutex>

#include "devices/device_marks.h"
#include "devices/signal_fds.h"
#include "vfio_user/client.h"
#include "vfio_user/unique_fd.h"
#include "vmm/guest_memory.h"
#include "vmm/machine_config.h"
#include "vmm/sandbox.h"

namespace outboard::vmm {

// A device whose server has answered everything.
struct AttachedDevice {
  std::unique_ptr<vfio_user::Client> client;
  vfio_user::DeviceDescription description;
  devices::SignalFds signals;                      // where the description says so, armed
  vfio_user::MessageObserver* observer = nullptr;  // the client's
};

// Ends what is being waited for, from another thread.
class ConnectCancel {
 public:
  ConnectCancel();
  ConnectCancel(const ConnectCancel&) = delete;
  ConnectCancel& operator=(const ConnectCancel&) = delete;

  // For good. Any thread.
  void cancel();
  [[nodiscard]] bool cancelled() const;
  // Readable once it is cancelled; -1 if there was no descriptor left.
  [[nodiscard]] int fd() const { return event_.get(); }

  // From now on cancel() shuts `socket` down, which stays the caller's. False: it is cancelled.
  [[nodiscard]] bool watch(int socket);
  void forget_socket();

 private:
  const vfio_user::UniqueFd event_;
  mutable std::mutex mutex_;  // a leaf
  bool cancelled_ = false;
  vfio_user::UniqueFd socket_;  // a duplicate
};

// What a connection is made from. All outlive the attempt; the observer outlives the client.
struct ConnectRequest {
  const DeviceConfig& config;
  const GuestMemory& memory;
  vfio_user::MessageObserver* observer = nullptr;  // may be none
  devices::DeviceMarks* marks = nullptr;           // stamped by the first attempt; may be none
  Sandbox* sandbox = nullptr;  // entered by the twin socket's thread; may be none
};

// The server listens, or will not, at `path`, which may also name a descriptor (given_fds.h).
[[nodiscard]] vfio_user::Result<AttachedDevice> connect_device(const ConnectRequest& request,
                                                               const std::string& path,
                                                               ConnectCancel& cancel);

}  // namespace outboard::vmm
