#include "devices/ecam.h"

#include "devices/aligned_pieces.h"

namespace outboard::devices {
namespace {

struct Target {
  std::uint32_t device;
  std::uint32_t function;
  std::uint32_t reg;
};

// Offset 27:20 is the bus; the window covers bus 0 only.
Target decode(std::uint64_t offset) {
  return {static_cast<std::uint32_t>(offset >> 15) & 0x1f,
          static_cast<std::uint32_t>(offset >> 12) & 0x07,
          static_cast<std::uint32_t>(offset) & 0xfff};
}

}  // namespace

void Ecam::read(std::uint64_t offset, std::span<std::byte> data) {
  for_aligned_pieces(offset, data, [&](std::uint64_t at, std::span<std::byte> bytes) {
    const Target target = decode(at);
    store_le(bytes, bus0_read(slots_, target.device, target.function, target.reg,
                              static_cast<std::uint32_t>(bytes.size())));
  });
}

void Ecam::write(std::uint64_t offset, std::span<const std::byte> data) {
  for_aligned_pieces(offset, data, [&](std::uint64_t at, std::span<const std::byte> bytes) {
    const Target target = decode(at);
    bus0_write(slots_, target.device, target.function, target.reg,
               static_cast<std::uint32_t>(bytes.size()),
               static_cast<std::uint32_t>(load_le(bytes)));
  });
}

}  // namespace outboard::devices
