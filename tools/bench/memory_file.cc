#include "tools/bench/memory_file.h"

#include <algorithm>

#include <sys/mman.h>
#include <unistd.h>

namespace outboard::bench {

vfio_user::UniqueFd memory_file(const char* name) {
  return vfio_user::UniqueFd(::memfd_create(name, MFD_CLOEXEC));
}

std::string content_of(int fd) {
  constexpr off_t kEnough = 4096;
  const off_t size = ::lseek(fd, 0, SEEK_END);
  if (size <= 0) return {};
  std::string text(static_cast<std::size_t>(std::min(size, kEnough)), '\0');
  const ssize_t got = ::pread(fd, text.data(), text.size(), std::max<off_t>(0, size - kEnough));
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  std::string indented = "    ";
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r') continue;
    indented += text[i];
    if (text[i] == '\n' && i + 1 < text.size()) indented += "    ";
  }
  return indented;
}

}  // namespace outboard::bench
