// The vfio-user client behind this room's two small interfaces.
#pragma once

#include "devices/device_irqs.h"
#include "devices/remote_config.h"
#include "vfio_user/client.h"

namespace outboard::devices {

[[nodiscard]] inline Error converted(const vfio_user::Error& error) {
  return {error.message, error.code};
}

// Any thread, as the client.
class ClientIrqs final : public DeviceIrqs {
 public:
  explicit ClientIrqs(vfio_user::Client& client) : client_(client) {}

  Result<void> arm(std::uint32_t index, std::uint32_t start,
                   std::span<const int> eventfds) override {
    return client_.arm_irqs(index, start, eventfds).map_error(converted);
  }
  Result<void> disable(std::uint32_t index) override {
    return client_.disable_irqs(index).map_error(converted);
  }
  Result<void> mask(std::uint32_t index, std::uint32_t start, std::uint32_t count) override {
    return client_.mask_irqs(index, start, count).map_error(converted);
  }
  Result<void> unmask(std::uint32_t index, std::uint32_t start, std::uint32_t count) override {
    return client_.unmask_irqs(index, start, count).map_error(converted);
  }

 private:
  vfio_user::Client& client_;
};

// Any thread, as the client. Config writes are never posted.
class ClientConfig final : public RemoteConfig {
 public:
  explicit ClientConfig(vfio_user::Client& client) : client_(client) {}

  Result<void> read(std::uint32_t reg, std::span<std::byte> data) override {
    const auto got = client_.region_read(vfio_user::kRegionConfig, reg, data);
    if (!got) return tl::unexpected(converted(got.error()));
    if (*got != data.size()) return failure("short reply");
    return {};
  }
  Result<void> write(std::uint32_t reg, std::span<const std::byte> data) override {
    return client_.region_write(vfio_user::kRegionConfig, reg, data, vfio_user::Write::wait)
        .map_error(converted);
  }

 private:
  vfio_user::Client& client_;
};

}  // namespace outboard::devices
