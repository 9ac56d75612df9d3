#include "vmm/device_attach.h"

#include <cerrno>
#include <exception>
#include <utility>

#include <fmt/core.h>

namespace outboard::vmm {

DeviceAttach::DeviceAttach(const std::vector<DeviceConfig>& devices,
                           const std::vector<devices::DeviceMarks*>& marks,
                           const GuestMemory& memory, AwaitSocket await_socket, EventLoop& loop,
                           Trace* trace, Sandbox* sandbox)
    : devices_(devices),
      memory_(memory),
      await_socket_(std::move(await_socket)),
      loop_(loop),
      sandbox_(sandbox) {
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    attempts_.push_back(std::make_unique<Attempt>());
    Attempt& attempt = *attempts_.back();
    attempt.marks = marks[i];
    if (trace != nullptr) attempt.observer = &trace->add_device(devices_[i].name);
    attempt.thread = std::thread([this, &config = devices_[i], &attempt] {
      enter(sandbox_, ThreadKind::attach, config.name);
      attach(config, attempt);
    });
  }
}

DeviceAttach::~DeviceAttach() {
  for (const auto& attempt : attempts_) attempt->cancel.cancel();
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
  auto device = connect_device({.config = config,
                                .memory = memory_,
                                .observer = attempt.observer,
                                .marks = attempt.marks,
                                .sandbox = sandbox_},
                               path, attempt.cancel);
  attempt.cancel.forget_socket();
  if (!device) return tl::unexpected(device.error());
  const std::lock_guard lock(mutex_);
  attempt.device = std::move(*device);
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
