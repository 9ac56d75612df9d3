// Writes a flattened device tree from front to back with libfdt. The first error of libfdt sticks
// and is returned by finish().
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "boot/result.h"

namespace outboard::boot {

class TreeWriter {
 public:
  TreeWriter();

  void begin(const std::string& name);
  void begin(std::string_view name, std::uint64_t unit_address);  // "name@address"
  void end();

  void flag(const char* name);
  void u32(const char* name, std::uint32_t value);
  void u64(const char* name, std::uint64_t value);
  void string(const char* name, const std::string& value);
  void strings(const char* name, const std::vector<std::string>& values);
  void cells(const char* name, const std::vector<std::uint32_t>& values);
  void bytes(const char* name, std::span<const std::byte> value);
  // The name of this node for cells that refer to it.
  void phandle(std::uint32_t value) { u32("phandle", value); }

  [[nodiscard]] Result<std::vector<std::byte>> finish();

 private:
  void property(const char* name, const void* data, std::size_t size);
  void check(int status);

  std::vector<std::byte> bytes_;
  int error_ = 0;
};

// "name@address", the address in hexadecimal.
[[nodiscard]] std::string unit_name(std::string_view name, std::uint64_t address);

// A number of 64 bits as two cells.
[[nodiscard]] constexpr std::uint32_t high_cell(std::uint64_t value) {
  return static_cast<std::uint32_t>(value >> 32);
}
[[nodiscard]] constexpr std::uint32_t low_cell(std::uint64_t value) {
  return static_cast<std::uint32_t>(value);
}

}  // namespace outboard::boot
