// MSI-X: the table, the pending bit array and the function's control word (PCI 3.0 §6.8.2).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/vector_set.h"

namespace outboard::devices {

// Where a function's MSI-X structures lie in its BARs.
struct MsixShape {
  std::uint32_t vectors = 0;
  std::uint32_t table_region = 0;
  std::uint64_t table_offset = 0;
  std::uint32_t pba_region = 0;
  std::uint64_t pba_offset = 0;

  std::uint64_t table_size() const { return std::uint64_t{vectors} * 16; }
  std::uint64_t pba_size() const { return (std::uint64_t{vectors} + 63) / 64 * 8; }
};

// Not thread-safe; the owner has a lock. A vector counts as used once its table entry has an
// address. While the function is masked nothing is armed or routed; lifting the mask does it for
// all used vectors at once.
class Msix final {
 public:
  // requester as in MsiRouter::Route.
  Msix(const MsixShape& shape, bool server_masks, DeviceIrqs& device, MsiRouter& router,
       std::uint16_t requester = 0);

  const MsixShape& shape() const { return shape_; }
  bool enabled() const { return enabled_; }

  // Offsets count from the start of the table or the PBA; accesses stay inside them. The guest's
  // accesses are whole words of 4 or 8 bytes; others read all ones and are dropped.
  void read_table(std::uint64_t offset, std::span<std::byte> data) const;
  Result<void> write_table(std::uint64_t offset, std::span<const std::byte> data);
  void read_pba(std::uint64_t offset, std::span<std::byte> data) const;

  // The control word's two writable bits. Enabling arms before it returns; disabling tells the
  // server.
  Result<void> set_control(bool enable, bool function_mask);

  // Back to power-on: disabled, every entry zero and masked. The server is told when it has
  // eventfds.
  Result<void> reset();
  // The server is gone: as disabled, nothing is sent; the table keeps its content.
  void drop() { vectors_.drop(); }
  // After drop(): the vectors that the table has in use are armed again, all in one go.
  Result<void> rearm() {
    return enabled_ && !function_mask_ ? apply(0, shape_.vectors) : Result<void>{};
  }
  void signal_all() const { vectors_.signal_all(); }

 private:
  struct Entry {
    std::array<std::uint32_t, 4> words{0, 0, 0, 1};  // address low, high, data, vector control
  };

  VectorState state(std::uint32_t vector) const;
  Result<void> apply(std::uint32_t first, std::uint32_t count);

  const MsixShape shape_;
  VectorSet vectors_;
  std::vector<Entry> table_;
  bool enabled_ = false;
  bool function_mask_ = false;
};

}  // namespace outboard::devices
