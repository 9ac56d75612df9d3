#include "tools/nvme/doorbells.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace outboard::nvme {

tl::expected<std::unique_ptr<Doorbells>, std::string> Doorbells::create() {
  vfio_user::UniqueFd fd(memfd_create("outboard-nvme-bar0", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return tl::unexpected(std::string("cannot create a memfd: ") + std::strerror(errno));
  if (ftruncate(fd.get(), kBar0Size) != 0 ||
      fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return tl::unexpected(std::string("cannot set up the doorbell page: ") + std::strerror(errno));
  }
  return over(std::move(fd));
}

tl::expected<std::unique_ptr<Doorbells>, std::string> Doorbells::over(vfio_user::UniqueFd file) {
  // From the file's start: where the host has larger pages, its second 4 KiB begin none.
  void* base = mmap(nullptr, kBar0Size, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (base == MAP_FAILED) {
    return tl::unexpected(std::string("cannot map the doorbell page: ") + std::strerror(errno));
  }
  return std::unique_ptr<Doorbells>(new Doorbells(std::move(file), static_cast<std::byte*>(base)));
}

Doorbells::~Doorbells() {
  munmap(base_, kBar0Size);
}

void Doorbells::clear_all() {
  for (u32 i = 0; i < kDoorbellPageSize / sizeof(u32); ++i) store(i, 0);
}

}  // namespace outboard::nvme
