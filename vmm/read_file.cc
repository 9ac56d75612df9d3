#include "vmm/read_file.h"

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

namespace outboard::vmm {

KernelFile::KernelFile(const char* path) : file_(::open(path, O_RDONLY | O_CLOEXEC)) {}

std::optional<std::string> KernelFile::read() const {
  if (!file_) return std::nullopt;
  std::string text;
  std::array<char, 16384> piece{};
  for (;;) {
    const ssize_t got =
        ::pread(file_.get(), piece.data(), piece.size(), static_cast<off_t>(text.size()));
    if (got == 0) return text;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::nullopt;
    text.append(piece.data(), static_cast<std::size_t>(got));
  }
}

std::optional<std::string> read_file(const char* path) {
  return KernelFile(path).read();
}

}  // namespace outboard::vmm
