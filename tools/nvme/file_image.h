// An image file or a block device: opened, checked and locked for the life of the object.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include <tl/expected.hpp>

#include "tools/nvme/spec.h"

namespace outboard::nvme {

// How long a lock is waited for, and who is told about it.
struct LockWait {
  std::chrono::milliseconds patience{0};
  std::function<void(const std::string&)> progress;
};

class FileImage {
 public:
  // Refuses what another process already serves: a write lock of the open file description, or a
  // read lock for a read-only image, which many may hold. Errors are one sentence with its remedy.
  // The lock also waits for requests of a process that was killed: they hold its open file until
  // they are done, and with it the lock. `path` may name a descriptor ("fd:5"), which is taken
  // over: whoever else has it shares its lock.
  static tl::expected<std::unique_ptr<FileImage>, std::string> open(const std::string& path,
                                                                    bool read_only, u32 block_size,
                                                                    const LockWait& wait = {});
  ~FileImage();
  FileImage(const FileImage&) = delete;
  FileImage& operator=(const FileImage&) = delete;

  int fd() const { return fd_; }
  u64 size() const { return size_; }
  u64 allocated() const;  // bytes, at most size()
  bool direct() const { return direct_; }
  u32 memory_alignment() const { return direct_ ? memory_alignment_ : 1; }
  // Direct I/O where its granularity allows requests of this size; with none in flight.
  void set_block_size(u32 bytes);

 private:
  FileImage(int fd, u64 size) : fd_(fd), size_(size) {}
  void probe_direct();

  int fd_;
  u64 size_;
  bool direct_ = false;
  u32 memory_alignment_ = 0;  // of direct I/O; 0: not possible
  u32 offset_alignment_ = 0;
};

}  // namespace outboard::nvme
