// The configuration space of one PCI function as bytes with access rules: which bits the guest may
// write, and which it clears by writing 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace outboard::devices {

// Not thread-safe; the owner has a lock. Reads beyond the size return 0, writes are dropped. reg
// and size as in PciFunction; registers are little-endian.
class ConfigSpace final {
 public:
  static constexpr std::size_t kConventional = 256;
  static constexpr std::size_t kExtended = 4096;

  // size is kConventional or kExtended; all zero, nothing writable.
  explicit ConfigSpace(std::size_t size);

  std::size_t size() const { return bytes_.size(); }
  std::span<const std::byte> bytes() const { return bytes_; }

  // Guest accesses: only writable bits change, write-one-to-clear bits clear.
  std::uint32_t read(std::uint32_t reg, std::uint32_t size) const;
  void write(std::uint32_t reg, std::uint32_t size, std::uint32_t value);

  // Owner accesses: any value, past the rules.
  void set(std::uint32_t reg, std::uint32_t size, std::uint32_t value);
  void set_bytes(std::uint32_t reg, std::span<const std::byte> bytes);

  // Adds mask to the bits the guest may write, or may clear by writing 1.
  void allow_write(std::uint32_t reg, std::uint32_t size, std::uint32_t mask);
  void allow_clear(std::uint32_t reg, std::uint32_t size, std::uint32_t mask);

 private:
  bool holds(std::uint32_t reg, std::uint32_t size) const;

  std::vector<std::byte> bytes_;
  std::vector<std::byte> writable_;
  std::vector<std::byte> clearable_;
};

}  // namespace outboard::devices
