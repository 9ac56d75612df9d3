#pragma once

#include <cstddef>
#include <span>

namespace outboard::vmm {

// The bytes of a file while they are needed: its pages are not kept in the process afterwards.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(int fd);  // of an empty or unreadable file: no bytes
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace outboard::vmm
