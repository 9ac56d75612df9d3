#include "vmm/box/process.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <string_view>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace outboard::box {
namespace {

// Every number that may be open, from 3 on.
std::vector<int> open_descriptors() {
  std::vector<int> all;
  if (DIR* const folder = ::opendir("/proc/self/fd"); folder != nullptr) {
    while (const dirent* const entry = ::readdir(folder)) {
      int fd = -1;
      const std::string_view name(entry->d_name);
      std::from_chars(name.data(), name.data() + name.size(), fd);
      if (fd >= 3 && fd != ::dirfd(folder)) all.push_back(fd);
    }
    ::closedir(folder);
    return all;
  }
  // No /proc, as in a chroot.
  rlimit limit{};
  constexpr rlim_t kMost = 65536;
  ::getrlimit(RLIMIT_NOFILE, &limit);
  for (int fd = 3; fd < static_cast<int>(std::min(limit.rlim_cur, kMost)); ++fd) all.push_back(fd);
  return all;
}

}  // namespace

unsigned close_inherited(std::span<const int> keep) {
  unsigned closed = 0;
  for (const int fd : open_descriptors()) {
    const int flags = ::fcntl(fd, F_GETFD);
    if (flags < 0 || (flags & FD_CLOEXEC) != 0 || std::ranges::find(keep, fd) != keep.end()) {
      continue;
    }
    ::close(fd);
    ++closed;
  }
  return closed;
}

void forbid_core_dumps() {
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
}

void limit_file_size(std::uint64_t bytes) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max = std::min<rlim_t>(limit.rlim_max, bytes);
  ::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &limit);
}

int keep_capabilities(std::uint64_t keep) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
  if (::syscall(SYS_capget, &header, data.data()) != 0) return errno;
  bool drops = false;
  for (std::size_t i = 0; i < data.size(); ++i) {
    const auto mask = static_cast<std::uint32_t>(keep >> (32 * i));
    drops = drops || (data[i].permitted & ~mask) != 0 || data[i].inheritable != 0;
    data[i].permitted &= mask;
    data[i].effective &= mask;
    data[i].inheritable = 0;
  }
  if (!drops) return 0;
  return ::syscall(SYS_capset, &header, data.data()) == 0 ? 0 : errno;
}

}  // namespace outboard::box
