#include "devices/msix.h"

#include <algorithm>
#include <cstring>

#include "devices/aligned_pieces.h"
#include "devices/pci_registers.h"
#include "vfio_user/device_description.h"

namespace outboard::devices {
namespace {

constexpr std::size_t kControl = 3;  // word of an entry: vector control
constexpr std::uint32_t kAddressBits = 0xfffffffc;

bool whole_words(std::uint64_t offset, std::size_t size) {
  return (size == 4 || size == 8) && offset % size == 0;
}

}  // namespace

Msix::Msix(const MsixShape& shape, bool server_masks, DeviceIrqs& device, MsiRouter& router,
           std::uint16_t requester)
    : shape_(shape),
      vectors_(vfio_user::kIrqMsix, shape.vectors, server_masks, device, router, requester),
      table_(shape.vectors) {}

void Msix::read_table(std::uint64_t offset, std::span<std::byte> data) const {
  std::ranges::fill(data, std::byte{0xff});
  if (!whole_words(offset, data.size())) return;
  for (std::size_t i = 0; i < data.size(); i += 4) {
    const std::uint64_t word = (offset + i) / 4;
    if (word / 4 >= table_.size()) return;
    store_le(data.subspan(i, 4), table_[word / 4].words[word % 4]);
  }
}

Result<void> Msix::write_table(std::uint64_t offset, std::span<const std::byte> data) {
  if (!whole_words(offset, data.size())) return {};
  const auto vector = static_cast<std::uint32_t>(offset / pci::msix::kEntrySize);
  if (vector >= table_.size()) return {};
  Entry& entry = table_[vector];
  for (std::size_t i = 0; i < data.size(); i += 4) {
    const std::size_t word = (offset + i) / 4 % 4;
    auto value = static_cast<std::uint32_t>(load_le(data.subspan(i, 4)));
    if (word == 0) value &= kAddressBits;
    if (word == kControl) value &= pci::msix::kVectorMasked;
    entry.words[word] = value;
  }
  return enabled_ && !function_mask_ ? apply(vector, 1) : Result<void>{};
}

void Msix::read_pba(std::uint64_t offset, std::span<std::byte> data) const {
  std::ranges::fill(data, std::byte{0});
  for (std::size_t i = 0; i < data.size() * 8; ++i) {
    const std::uint64_t vector = offset * 8 + i;
    if (vector >= shape_.vectors) return;
    if (vectors_.pending(static_cast<std::uint32_t>(vector))) {
      data[i / 8] |= static_cast<std::byte>(1U << (i % 8));
    }
  }
}

Result<void> Msix::set_control(bool enable, bool function_mask) {
  const bool was_enabled = enabled_;
  const bool changed = enable != enabled_ || function_mask != function_mask_;
  enabled_ = enable;
  function_mask_ = function_mask;
  if (!changed) return {};
  if (!enable) return was_enabled ? vectors_.disable() : Result<void>{};
  return apply(0, shape_.vectors);
}

Result<void> Msix::reset() {
  auto told = set_control(false, false);
  std::ranges::fill(table_, Entry{});
  return told;
}

VectorState Msix::state(std::uint32_t vector) const {
  const auto& words = table_[vector].words;
  const MsiMessage message{(std::uint64_t{words[1]} << 32) | words[0], words[2]};
  return {message.address != 0, function_mask_ || (words[kControl] & pci::msix::kVectorMasked) != 0,
          message};
}

// Under the function mask only what is armed already changes: used vectors wait for the lift.
Result<void> Msix::apply(std::uint32_t first, std::uint32_t count) {
  return vectors_.update(first, count, [this](std::uint32_t vector) {
    VectorState wanted = state(vector);
    if (function_mask_) wanted.used = false;
    return wanted;
  });
}

}  // namespace outboard::devices
