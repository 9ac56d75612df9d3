#include "devices/msix_window.h"

#include <algorithm>
#include <array>

namespace outboard::devices {

void MsixTableWindow::read(std::uint64_t offset, std::span<std::byte> data) {
  std::ranges::fill(data, std::byte{0xff});
  if (!client_.alive()) return;
  std::lock_guard lock(mutex_);
  interrupts_.msix()->read_table(offset, data);
}

void MsixTableWindow::write(std::uint64_t offset, std::span<const std::byte> data) {
  std::lock_guard lock(mutex_);
  if (!client_.alive()) return;  // under the lock: once the device is lost, nothing is armed again
  interrupts_.write_table(offset, data);
}

void PendingBitsWindow::read(std::uint64_t offset, std::span<std::byte> data) {
  std::ranges::fill(data, std::byte{0xff});
  if (!client_.alive()) return;
  {
    std::lock_guard lock(mutex_);
    interrupts_.msix()->read_pba(offset, data);
  }
  std::array<std::byte, 8> remote{};
  if (!ask_server_.load(std::memory_order_relaxed) || data.size() > remote.size()) return;
  const MsixShape& shape = interrupts_.msix()->shape();
  const auto into = std::span(remote).first(data.size());
  const auto got = client_.region_read(shape.pba_region, shape.pba_offset + offset, into);
  if (!got || *got != into.size()) {
    ask_server_.store(false, std::memory_order_relaxed);
    return;
  }
  for (std::size_t i = 0; i < data.size(); ++i) data[i] |= remote[i];
}

}  // namespace outboard::devices
