// Descriptors that a peer may send: files of several kinds, made once and duplicated for each use.
#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vfio_user/unique_fd.h"

namespace outboard::fuzz {

inline constexpr std::uint64_t kFileSize = 0x10000;  // of the ordinary file

// Kind 0 is what an honest peer would send.
inline constexpr std::uint32_t kFileKinds = 8;

inline vfio_user::UniqueFd file(std::uint32_t kind) {
  static const std::array<int, kFileKinds> files = [] {
    const auto memory = [](const char* name, off_t size, unsigned seals) {
      const int fd = ::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
      if (fd < 0 || ::ftruncate(fd, size) != 0) std::abort();
      if (seals != 0) ::fcntl(fd, F_ADD_SEALS, seals);
      return fd;
    };
    std::array<int, kFileKinds> made{};
    made[0] = memory("whole", kFileSize, F_SEAL_SHRINK | F_SEAL_GROW);
    made[1] = memory("unsealed", kFileSize, 0);
    made[2] = memory("short", 0x1800, F_SEAL_SHRINK);
    made[3] = memory("unwritable", kFileSize, F_SEAL_SHRINK | F_SEAL_WRITE);
    made[4] = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    made[5] = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    made[6] = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    made[7] = ::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return made;
  }();
  return vfio_user::UniqueFd(::fcntl(files.at(kind), F_DUPFD_CLOEXEC, 0));
}

// An eventfd for what has no other kind.
inline vfio_user::UniqueFd event() {
  return vfio_user::UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

}  // namespace outboard::fuzz
