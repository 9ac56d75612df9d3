// The server behind a link, as this room's two small interfaces.
#pragma once

#include "devices/device_irqs.h"
#include "devices/device_link.h"
#include "devices/remote_config.h"
#include "vfio_user/client.h"

namespace outboard::devices {

// Asks whoever is the client now. The caller has the function's lock.
template <class Op>
auto ask_client(DeviceLink& link, Op&& op)
    -> decltype(op(std::declval<vfio_user::Client&>())
                    .map_error(std::declval<Error (*)(const vfio_user::Error&)>())) {
  vfio_user::Client* const client = link.client();
  if (client == nullptr) return tl::unexpected(Error{"its server is gone", ENOTCONN, true});
  return op(*client).map_error([client](const vfio_user::Error& error) {
    return Error{error.message, error.code, !client->alive()};
  });
}

// Under the function's lock, but for the unmask of INTx.
class ClientIrqs final : public DeviceIrqs {
 public:
  explicit ClientIrqs(DeviceLink& link) : link_(link) {}

  Result<void> arm(std::uint32_t index, std::uint32_t start,
                   std::span<const int> eventfds) override {
    return ask_client(
        link_, [&](vfio_user::Client& client) { return client.arm_irqs(index, start, eventfds); });
  }
  Result<void> disable(std::uint32_t index) override {
    return ask_client(link_, [&](vfio_user::Client& client) { return client.disable_irqs(index); });
  }
  Result<void> mask(std::uint32_t index, std::uint32_t start, std::uint32_t count) override {
    return ask_client(
        link_, [&](vfio_user::Client& client) { return client.mask_irqs(index, start, count); });
  }
  Result<void> unmask(std::uint32_t index, std::uint32_t start, std::uint32_t count) override {
    const auto ask = [&](vfio_user::Client& client) {
      return client.unmask_irqs(index, start, count);
    };
    if (index != vfio_user::kIrqIntx) return ask_client(link_, ask);
    // From the thread of INTx: what it has to say in vain is said again when the line is connected.
    return link_.try_access(ask).map_error([](const vfio_user::Error& error) {
      return Error{error.message, error.code, false};
    });
  }

 private:
  DeviceLink& link_;
};

// Under the function's lock. Config writes are never posted.
class ClientConfig final : public RemoteConfig {
 public:
  explicit ClientConfig(DeviceLink& link) : link_(link) {}

  Result<void> read(std::uint32_t reg, std::span<std::byte> data) override {
    const auto got = ask_client(link_, [&](vfio_user::Client& client) {
      return client.region_read(vfio_user::kRegionConfig, reg, data);
    });
    if (!got) return tl::unexpected(got.error());
    if (*got != data.size()) return failure("short reply");
    return {};
  }
  Result<void> write(std::uint32_t reg, std::span<const std::byte> data) override {
    return ask_client(link_, [&](vfio_user::Client& client) {
      return client.region_write(vfio_user::kRegionConfig, reg, data, vfio_user::Write::wait);
    });
  }

 private:
  DeviceLink& link_;
};

}  // namespace outboard::devices
