#include "devices/msix_window.h"

#include <algorithm>
#include <array>

namespace outboard::devices {

void MsixTableWindow::read(std::uint64_t offset, std::span<std::byte> data) {
  std::ranges::fill(data, std::byte{0xff});
  DeviceLink::Patience patience(link_);
  do {
    std::lock_guard lock(mutex_);
    if (!link_.usable()) continue;
    return interrupts_.msix()->read_table(offset, data);
  } while (link_.wait(patience));
}

void MsixTableWindow::write(std::uint64_t offset, std::span<const std::byte> data) {
  DeviceLink::Patience patience(link_);
  do {
    std::lock_guard lock(mutex_);
    if (!link_.usable()) continue;  // under the lock: nothing is armed once the device is lost
    return interrupts_.write_table(offset, data);  // if it dies now, its return arms the vector
  } while (link_.wait(patience));
}

void PendingBitsWindow::read(std::uint64_t offset, std::span<std::byte> data) {
  std::ranges::fill(data, std::byte{0xff});
  DeviceLink::Patience patience(link_);
  for (bool done = false; !done;) {
    {
      std::lock_guard lock(mutex_);
      done = link_.usable();
      if (done) interrupts_.msix()->read_pba(offset, data);
    }
    if (!done && !link_.wait(patience)) return;
  }
  std::array<std::byte, 8> remote{};
  if (!ask_server_.load(std::memory_order_relaxed) || data.size() > remote.size()) return;
  const MsixShape& shape = interrupts_.msix()->shape();
  const auto into = std::span(remote).first(data.size());
  const auto got = link_.access(DeviceLink::Repeat::always, [&](vfio_user::Client& client) {
    return client.region_read(shape.pba_region, shape.pba_offset + offset, into);
  });
  if (!got || *got != into.size()) {
    const bool gone = !got && got.error().kind == vfio_user::Error::Kind::closed;
    if (!gone) ask_server_.store(false, std::memory_order_relaxed);
    return;
  }
  for (std::size_t i = 0; i < data.size(); ++i) data[i] |= remote[i];
}

}  // namespace outboard::devices
