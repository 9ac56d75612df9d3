#include "tools/nvme/memory_backend.h"

#include <cerrno>
#include <cstring>

#include <sys/mman.h>

namespace outboard::nvme {

tl::expected<std::unique_ptr<MemoryBackend>, std::string> MemoryBackend::create(u64 size) {
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return tl::unexpected("cannot reserve " + std::to_string(size) +
                          " bytes for a memory namespace: " + std::strerror(errno));
  }
  return std::unique_ptr<MemoryBackend>(new MemoryBackend(static_cast<std::byte*>(base), size));
}

MemoryBackend::~MemoryBackend() {
  munmap(base_, size_);
}

int MemoryBackend::run(const BackendRequest& request) {
  if (request.kind == BackendRequest::Kind::flush) return 0;
  if (request.offset > size_ || request.length > size_ - request.offset) return EIO;
  std::byte* at = base_ + request.offset;
  switch (request.kind) {
    case BackendRequest::Kind::read:
      for (const iovec& part : request.parts) {
        std::memcpy(part.iov_base, at, part.iov_len);
        at += part.iov_len;
      }
      return 0;
    case BackendRequest::Kind::write:
      for (const iovec& part : request.parts) {
        std::memcpy(at, part.iov_base, part.iov_len);
        at += part.iov_len;
      }
      return 0;
    case BackendRequest::Kind::flush:
      break;
    case BackendRequest::Kind::write_zeroes:
    case BackendRequest::Kind::discard: {
      // Whole pages go back to the host, the ragged ends are cleared.
      const u64 page = page_size_;
      const u64 end = request.offset + request.length;
      const u64 first = (request.offset + page - 1) / page * page;
      const u64 last = end / page * page;
      if (first >= last || madvise(base_ + first, last - first, MADV_DONTNEED) != 0) {
        std::memset(at, 0, request.length);
      } else {
        std::memset(at, 0, first - request.offset);
        std::memset(base_ + last, 0, end - last);
      }
      return 0;
    }
  }
  return EINVAL;
}

void MemoryBackend::submit(BackendRequest& request) {
  request.error = run(request);
  done_.push_back(&request);
}

void MemoryBackend::reap(std::vector<BackendRequest*>& done) {
  done.insert(done.end(), done_.begin(), done_.end());
  done_.clear();
}

}  // namespace outboard::nvme
