#include "vmm/device_attach.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <exception>
#include <utility>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "vfio_user/socket_transport.h"

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

}  // namespace

DeviceAttach::DeviceAttach(const std::vector<DeviceConfig>& devices,
                           const std::vector<devices::DeviceMarks*>& marks,
                           const GuestMemory& memory, AwaitSocket await_socket, EventLoop& loop,
                           Trace* trace)
    : devices_(devices), memory_(memory), await_socket_(std::move(await_socket)), loop_(loop) {
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    attempts_.push_back(std::make_unique<Attempt>());
    Attempt& attempt = *attempts_.back();
    attempt.marks = marks[i];
    if (trace != nullptr) attempt.observer = &trace->add_device(devices_[i].name);
    attempt.thread =
        std::thread([this, &config = devices_[i], &attempt] { attach(config, attempt); });
  }
}

DeviceAttach::~DeviceAttach() {
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    for (const auto& attempt : attempts_) {
      if (attempt->socket) ::shutdown(attempt->socket.get(), SHUT_RDWR);
    }
  }
  join();
}

void DeviceAttach::join() {
  for (const auto& attempt : attempts_) {
    if (attempt->thread.joinable()) attempt->thread.join();
  }
}

void DeviceAttach::attach(const DeviceConfig& config, Attempt& attempt) {
  vfio_user::Result<void> result;
  try {
    result = try_attach(config, attempt);
  } catch (const std::exception& error) {
    result = vfio_user::fail(vfio_user::Error::Kind::system, ENOMEM, error.what());
  }
  {
    const std::lock_guard lock(mutex_);
    attempt.done = true;
    attempt.socket.reset();
    if (!result) attempt.error = result.error();
  }
  loop_.post([] {});  // the main thread looks at decided()
}

vfio_user::Result<void> DeviceAttach::try_attach(const DeviceConfig& config, Attempt& attempt) {
  std::string path = config.socket;
  if (await_socket_) {
    auto socket = await_socket_(config);
    if (!socket) return tl::unexpected(socket.error());
    path = *socket;
  }
  auto socket =
      vfio_user::connect_unix(path, std::chrono::steady_clock::now() + config.timeouts.connect);
  if (!socket) return tl::unexpected(socket.error());
  attempt.marks->stamp(DeviceMark::connected);
  {
    const std::lock_guard lock(mutex_);
    if (cancelled_) {
      return vfio_user::fail(vfio_user::Error::Kind::closed, ECANCELED, "attach was cancelled");
    }
    attempt.socket.reset(::fcntl(socket->get(), F_DUPFD_CLOEXEC, 0));
  }
  auto transport = vfio_user::SocketTransport::adopt(std::move(*socket));
  if (!transport) return tl::unexpected(transport.error());
  vfio_user::ClientOptions options;
  options.name = path;  // what its messages begin with
  options.timeouts = config.timeouts;
  options.observer = attempt.observer;
  if (config.poll_replies) options.reply_poll = kReplyPoll;
  options.posted_writes =
      config.posted_writes ? vfio_user::Posting::automatic : vfio_user::Posting::off;
  auto client = vfio_user::Client::adopt(std::move(*transport), std::move(options));
  if (!client) return tl::unexpected(client.error());
  attempt.marks->stamp(DeviceMark::negotiated);
  std::vector<vfio_user::DmaWindow> windows;
  for (const RamWindow& window : memory_.windows()) {
    vfio_user::DmaWindow dma;
    dma.address = window.address;
    dma.size = window.size;
    dma.fd = memory_.fd();
    dma.file_offset = window.file_offset;
    dma.host = memory_.bytes(window);
    windows.push_back(dma);
  }
  // Armed with the other requests: later they would be round trips of their own.
  devices::SignalFds signals{vfio_user::UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
                             vfio_user::UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))};
  if (!signals.error || !signals.removal) {
    return vfio_user::fail(vfio_user::Error::Kind::system, errno, "cannot make an eventfd");
  }
  const std::array armed{vfio_user::SignalFd{vfio_user::kIrqErr, signals.error.get()},
                         vfio_user::SignalFd{vfio_user::kIrqReq, signals.removal.get()}};
  auto description = (*client)->attach(windows, armed);
  if (!description) return tl::unexpected(description.error());
  attempt.marks->stamp(DeviceMark::described);
  attempt.marks->stamp_at(DeviceMark::mapped, nanoseconds(description->mapped_at));
  const std::lock_guard lock(mutex_);
  attempt.device = {std::move(*client), std::move(*description), std::move(signals)};
  return {};
}

bool DeviceAttach::decided() const {
  const std::lock_guard lock(mutex_);
  bool all = true;
  for (const auto& attempt : attempts_) {
    if (attempt->error) return true;
    all = all && attempt->done;
  }
  return all;
}

Result<std::vector<AttachedDevice>> DeviceAttach::take() {
  {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < attempts_.size(); ++i) {
      if (!attempts_[i]->error) continue;
      return failure(ExitStatus::device_attach, fmt::format("device '{}': {}", devices_[i].name,
                                                            attempts_[i]->error->message));
    }
  }
  join();
  std::vector<AttachedDevice> devices;
  for (const auto& attempt : attempts_) devices.push_back(std::move(attempt->device));
  return devices;
}

}  // namespace outboard::vmm
