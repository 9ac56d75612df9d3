// As much of an NVMe host as it takes to send Identify commands through the vfio-user client.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include <sys/types.h>

#include "vfio_user/client.h"

namespace outboard::peers {

// Owns 4 MiB of shared memory: the guest's, at address 0. The admin queues are in it.
class NvmeHost final {
 public:
  NvmeHost();
  ~NvmeHost();
  NvmeHost(const NvmeHost&) = delete;
  NvmeHost& operator=(const NvmeHost&) = delete;

  // Two windows of 2 MiB.
  [[nodiscard]] std::vector<vfio_user::DmaWindow> windows() const;

  // How a doorbell is rung: an offset in BAR0 and a value.
  using Ring = std::function<void(std::uint64_t, std::uint32_t)>;
  // Enables the controller with admin queues of 32 entries. Empty, or what failed.
  std::string enable(vfio_user::Client& client, Ring ring);
  // Identify Controller, polled for. Empty, or what failed.
  std::string identify();

  // What the last identify() brought.
  [[nodiscard]] std::string model() const;
  [[nodiscard]] std::string serial() const;

 private:
  [[nodiscard]] std::string text(std::size_t at, std::size_t size) const;

  int file_ = -1;
  std::span<std::byte> memory_;
  Ring ring_;
  std::uint16_t tail_ = 0;
  std::uint16_t head_ = 0;
  std::uint16_t phase_ = 1;
  std::uint16_t command_ = 0;
};

}  // namespace outboard::peers
