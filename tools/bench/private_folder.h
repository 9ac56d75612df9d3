#pragma once

// A folder for one measurement's sockets and files, removed with all that is in it.

#include <string>
#include <string_view>

#include "tools/bench/error.h"

namespace outboard::bench {

class PrivateFolder {
 public:
  // Under XDG_RUNTIME_DIR or /tmp: short, since a socket's path may have 107 bytes.
  [[nodiscard]] static Result<PrivateFolder> create();

  PrivateFolder(PrivateFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  PrivateFolder& operator=(PrivateFolder&&) = delete;
  PrivateFolder(const PrivateFolder&) = delete;
  ~PrivateFolder();

  [[nodiscard]] std::string file(std::string_view name) const;

 private:
  explicit PrivateFolder(std::string path) : path_(std::move(path)) {}

  std::string path_;
};

[[nodiscard]] Result<void> write_file(const std::string& path, std::string_view content);
// Empty when it cannot be read.
[[nodiscard]] std::string read_file(const std::string& path);

}  // namespace outboard::bench
