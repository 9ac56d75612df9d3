#include "boot/tree_writer.h"

#include <array>
#include <charconv>
#include <utility>

#include <libfdt.h>

namespace outboard::boot {
namespace {

constexpr std::size_t kLargestTree = std::size_t{1} << 20;

}  // namespace

std::string unit_name(std::string_view name, std::uint64_t address) {
  std::array<char, 16> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), address, 16).ptr;
  return std::string(name) + "@" + std::string(digits.data(), end);
}

TreeWriter::TreeWriter() : bytes_(kLargestTree) {
  check(fdt_create(bytes_.data(), static_cast<int>(bytes_.size())));
  check(fdt_finish_reservemap(bytes_.data()));
}

void TreeWriter::begin(const std::string& name) {
  check(fdt_begin_node(bytes_.data(), name.c_str()));
}

void TreeWriter::begin(std::string_view name, std::uint64_t unit_address) {
  begin(unit_name(name, unit_address));
}

void TreeWriter::end() {
  check(fdt_end_node(bytes_.data()));
}

void TreeWriter::flag(const char* name) {
  check(fdt_property(bytes_.data(), name, nullptr, 0));
}

void TreeWriter::u32(const char* name, std::uint32_t value) {
  check(fdt_property_u32(bytes_.data(), name, value));
}

void TreeWriter::u64(const char* name, std::uint64_t value) {
  check(fdt_property_u64(bytes_.data(), name, value));
}

void TreeWriter::string(const char* name, const std::string& value) {
  property(name, value.c_str(), value.size() + 1);
}

void TreeWriter::strings(const char* name, const std::vector<std::string>& values) {
  std::string joined;
  for (const std::string& value : values) joined.append(value).push_back('\0');
  property(name, joined.data(), joined.size());
}

void TreeWriter::cells(const char* name, const std::vector<std::uint32_t>& values) {
  std::vector<std::uint32_t> big_endian;
  big_endian.reserve(values.size());
  for (const std::uint32_t value : values) big_endian.push_back(cpu_to_fdt32(value));
  property(name, big_endian.data(), big_endian.size() * sizeof(std::uint32_t));
}

void TreeWriter::bytes(const char* name, std::span<const std::byte> value) {
  property(name, value.data(), value.size());
}

Result<std::vector<std::byte>> TreeWriter::finish() {
  check(fdt_finish(bytes_.data()));
  if (error_ != 0) {
    return fail(std::string("the device tree cannot be written: ") + fdt_strerror(error_));
  }
  bytes_.resize(fdt_totalsize(bytes_.data()));
  return std::move(bytes_);
}

void TreeWriter::property(const char* name, const void* data, std::size_t size) {
  check(fdt_property(bytes_.data(), name, data, static_cast<int>(size)));
}

void TreeWriter::check(int status) {
  if (error_ == 0 && status < 0) error_ = status;
}

}  // namespace outboard::boot
