// A backend that keeps requests until the test lets them go, and fails those it is told to.
#pragma once

#include <algorithm>
#include <deque>

#include "tools/nvme/memory_backend.h"

namespace outboard::nvme::test {

class HeldBackend final : public Backend {
 public:
  explicit HeldBackend(u64 size) : inner_(std::move(*MemoryBackend::create(size))) {}

  u64 size() const override { return inner_->size(); }
  const char* describe() const override { return "held"; }
  bool volatile_cache() const override { return true; }
  u32 memory_alignment() const override { return alignment; }
  u64 allocated() const override { return size(); }
  void set_block_size(u32 bytes) override { block_size = bytes; }
  void submit(BackendRequest& request) override {
    kinds.push_back(request.kind);
    durable.push_back(request.durable);
    held.push_back(&request);
  }
  void kick() override {}
  void reap(std::vector<BackendRequest*>& done) override {
    const std::size_t count = hold ? std::min(allowed, held.size()) : held.size();
    for (std::size_t i = 0; i < count; ++i) {
      BackendRequest& request = *held.front();
      held.pop_front();
      if (const int error = fail_with; error != 0) {
        request.error = error;
        done.push_back(&request);
      } else {
        inner_->submit(request);
      }
    }
    allowed -= hold ? count : 0;
    inner_->reap(done);
  }
  void wait() override { allowed = std::max<std::size_t>(allowed, 1); }
  int poll_fd() const override { return -1; }

  bool hold = false;
  std::size_t allowed = 0;  // requests that may finish although held
  int fail_with = 0;
  u32 alignment = 1;
  u32 block_size = 0;
  std::deque<BackendRequest*> held;
  std::vector<BackendRequest::Kind> kinds;
  std::vector<bool> durable;

 private:
  std::unique_ptr<MemoryBackend> inner_;
};

}  // namespace outboard::nvme::test
