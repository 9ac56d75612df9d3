#include "vmm/device_connect.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "vfio_user/given_fds.h"
#include "vfio_user/socket_transport.h"
#include "vmm/dma_plan.h"
#include "vmm/server_user.h"

namespace outboard::vmm {
namespace {

using devices::DeviceMark;

// As long as KVM polls for a halted vCPU by default (halt_poll_ns on x86). The reply of a server
// that runs on a processor of its own comes in 5 to 100 us, as quick as the host wakes it.
constexpr std::chrono::microseconds kReplyPoll{200};

// steady_clock is CLOCK_MONOTONIC.
std::uint64_t nanoseconds(std::chrono::steady_clock::time_point time) {
  const auto since = std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch());
  return static_cast<std::uint64_t>(since.count());
}

// A path, a connected socket ("fd:5"), or one in an open directory ("fd:5/device.sock").
vfio_user::Result<vfio_user::UniqueFd> open_socket(const std::string& path,
                                                   vfio_user::Deadline deadline) {
  const auto given = vfio_user::parse_given_fd(path);
  if (!given) return vfio_user::connect_unix(path, deadline);
  if (given->file.empty()) return vfio_user::take_given_fd(given->fd);
  return vfio_user::connect_unix_at(given->fd, given->file, deadline);
}

}  // namespace

ConnectCancel::ConnectCancel() : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

void ConnectCancel::cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  ::eventfd_write(event_.get(), 1);
  if (socket_) ::shutdown(socket_.get(), SHUT_RDWR);
}

bool ConnectCancel::cancelled() const {
  const std::lock_guard lock(mutex_);
  return cancelled_;
}

bool ConnectCancel::watch(int socket) {
  const std::lock_guard lock(mutex_);
  if (!cancelled_) socket_.reset(::fcntl(socket, F_DUPFD_CLOEXEC, 0));
  return !cancelled_;
}

void ConnectCancel::forget_socket() {
  const std::lock_guard lock(mutex_);
  socket_.reset();
}

vfio_user::Result<AttachedDevice> connect_device(const ConnectRequest& request,
                                                 const std::string& path, ConnectCancel& cancel) {
  const DeviceConfig& config = request.config;
  const auto stamp = [&request](DeviceMark mark) {
    if (request.marks != nullptr) request.marks->stamp(mark);
  };
  auto socket = open_socket(path, std::chrono::steady_clock::now() + config.timeouts.connect);
  if (!socket) return tl::unexpected(socket.error());
  stamp(DeviceMark::connected);
  if (!cancel.watch(socket->get())) {
    return vfio_user::fail(vfio_user::Error::Kind::closed, ECANCELED, "attach was cancelled");
  }
  const auto refused = [&path](const vfio_user::Error& error) {
    return vfio_user::fail(error.kind, error.code,
                           fmt::format("socket '{}': {}", path, error.message));
  };
  auto transport = vfio_user::SocketTransport::adopt(std::move(*socket));
  if (!transport) return refused(transport.error());
  if (auto user = check_server_user((*transport)->fd(), config.server_user); !user) {
    return refused(user.error());
  }
  vfio_user::ClientOptions options;
  options.name = path;  // what its messages begin with
  options.timeouts = config.timeouts;
  options.observer = request.observer;
  options.twin_thread_started = [sandbox = request.sandbox, name = config.name] {
    enter(sandbox, ThreadKind::twin, name);
  };
  if (config.poll_replies) options.reply_poll = kReplyPoll;
  options.posted_writes =
      config.posted_writes ? vfio_user::Posting::automatic : vfio_user::Posting::off;
  auto client = vfio_user::Client::adopt(std::move(*transport), std::move(options));
  if (!client) return tl::unexpected(client.error());
  stamp(DeviceMark::negotiated);
  // Armed with the other requests: later they would be round trips of their own.
  devices::SignalFds signals{vfio_user::UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
                             vfio_user::UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))};
  if (!signals.error || !signals.removal) {
    return vfio_user::fail(vfio_user::Error::Kind::system, errno, "cannot make an eventfd");
  }
  const std::array armed{vfio_user::SignalFd{vfio_user::kIrqErr, signals.error.get()},
                         vfio_user::SignalFd{vfio_user::kIrqReq, signals.removal.get()}};
  auto description = (*client)->attach(dma_windows(request.memory, config.dma), armed);
  if (!description) return tl::unexpected(description.error());
  stamp(DeviceMark::described);
  if (request.marks != nullptr) {
    request.marks->stamp_at(DeviceMark::mapped, nanoseconds(description->mapped_at));
  }
  return AttachedDevice{std::move(*client), std::move(*description), std::move(signals),
                        request.observer};
}

}  // namespace outboard::vmm
