// Takes every write and reads zeros: what an access costs without media.
#pragma once

#include <cstring>

#include "tools/nvme/backend.h"

namespace outboard::nvme {

class NullBackend final : public Backend {
 public:
  explicit NullBackend(u64 size) : size_(size) {}

  u64 size() const override { return size_; }
  const char* describe() const override { return "null: writes are dropped, reads give zeros"; }
  bool volatile_cache() const override { return false; }
  u32 memory_alignment() const override { return 1; }
  u64 allocated() const override { return 0; }
  void set_block_size(u32) override {}
  void submit(BackendRequest& request) override {
    if (request.kind == BackendRequest::Kind::read) {
      for (const iovec& part : request.parts) std::memset(part.iov_base, 0, part.iov_len);
    }
    request.error = 0;
    done_.push_back(&request);
  }
  void kick() override {}
  void reap(std::vector<BackendRequest*>& done) override {
    done.insert(done.end(), done_.begin(), done_.end());
    done_.clear();
  }
  void wait() override {}
  int poll_fd() const override { return -1; }

 private:
  u64 size_;
  std::vector<BackendRequest*> done_;
};

}  // namespace outboard::nvme
