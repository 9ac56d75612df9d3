// A RAM disk: one anonymous mapping, lost at exit. Requests finish inside submit().
#pragma once

#include <memory>
#include <string>

#include <tl/expected.hpp>
#include <unistd.h>

#include "tools/nvme/backend.h"

namespace outboard::nvme {

class MemoryBackend final : public Backend {
 public:
  // Pages are taken as they are written. Error: a sentence.
  static tl::expected<std::unique_ptr<MemoryBackend>, std::string> create(u64 size);
  ~MemoryBackend() override;
  MemoryBackend(const MemoryBackend&) = delete;
  MemoryBackend& operator=(const MemoryBackend&) = delete;

  u64 size() const override { return size_; }
  const char* describe() const override { return "memory"; }
  bool volatile_cache() const override { return false; }
  u32 memory_alignment() const override { return 1; }
  u64 allocated() const override { return size_; }
  void set_block_size(u32) override {}
  void submit(BackendRequest& request) override;
  void kick() override {}
  void reap(std::vector<BackendRequest*>& done) override;
  void wait() override {}
  int poll_fd() const override { return -1; }

 private:
  MemoryBackend(std::byte* base, u64 size) : base_(base), size_(size) {}
  int run(const BackendRequest& request);

  std::byte* base_;
  u64 size_;
  const u64 page_size_ = static_cast<u64>(::sysconf(_SC_PAGESIZE));  // the host's
  std::vector<BackendRequest*> done_;
};

}  // namespace outboard::nvme
