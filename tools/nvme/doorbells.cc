#include "tools/nvme/doorbells.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace outboard::nvme {

tl::expected<std::unique_ptr<Doorbells>, std::string> Doorbells::create() {
  const int fd = memfd_create("outboard-nvme-bar0", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return tl::unexpected(std::string("cannot create a memfd: ") + std::strerror(errno));
  void* page = MAP_FAILED;
  if (ftruncate(fd, kBar0Size) == 0 &&
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0) {
    page = mmap(nullptr, kDoorbellPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, reg::doorbells);
  }
  if (page == MAP_FAILED) {
    const std::string why = std::strerror(errno);
    close(fd);
    return tl::unexpected("cannot set up the doorbell page: " + why);
  }
  return std::unique_ptr<Doorbells>(new Doorbells(fd, static_cast<u32*>(page)));
}

Doorbells::~Doorbells() {
  munmap(words_, kDoorbellPageSize);
  close(fd_);
}

void Doorbells::clear_all() {
  for (u32 i = 0; i < kDoorbellPageSize / sizeof(u32); ++i) store(i, 0);
}

}  // namespace outboard::nvme
