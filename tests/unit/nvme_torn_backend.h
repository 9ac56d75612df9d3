// A disk with a volatile cache, whose power can be cut: of what no flush has covered and no write
// asked to be durable, any block may be the old one or the new one.
#pragma once

#include <cerrno>
#include <cstring>
#include <random>
#include <vector>

#include "tools/nvme/backend.h"

namespace outboard::nvme::test {

class TornBackend final : public Backend {
 public:
  static constexpr u64 kBlock = 512;

  explicit TornBackend(std::vector<std::byte> content)
      : stable(std::move(content)), cache_(stable) {}

  u64 size() const override { return cache_.size(); }
  const char* describe() const override { return "torn"; }
  bool volatile_cache() const override { return true; }
  u32 memory_alignment() const override { return 1; }
  u64 allocated() const override { return size(); }
  void set_block_size(u32) override {}
  void submit(BackendRequest& request) override {
    request.error = fail_with != 0 && request.kind == fail_kind ? fail_with : run(request);
    done_.push_back(&request);
  }
  void kick() override {}
  void reap(std::vector<BackendRequest*>& done) override {
    done.insert(done.end(), done_.begin(), done_.end());
    done_.clear();
  }
  void wait() override {}
  int poll_fd() const override { return -1; }

  // What is on the media afterwards.
  std::vector<std::byte> cut_power(std::mt19937_64& random) {
    for (u64 at = 0; at < cache_.size(); at += kBlock) {
      if (random() % 2 == 0) std::memcpy(stable.data() + at, cache_.data() + at, kBlock);
    }
    return stable;
  }

  std::vector<std::byte> stable;
  int fail_with = 0;
  BackendRequest::Kind fail_kind = BackendRequest::Kind::write;

 private:
  int run(const BackendRequest& request) {
    if (request.kind == BackendRequest::Kind::flush) {
      stable = cache_;
      return 0;
    }
    if (request.offset > size() || request.length > size() - request.offset) return EIO;
    std::byte* at = cache_.data() + request.offset;
    switch (request.kind) {
      case BackendRequest::Kind::read:
        for (const iovec& part : request.parts) {
          std::memcpy(part.iov_base, at, part.iov_len);
          at += part.iov_len;
        }
        break;
      case BackendRequest::Kind::write:
        for (const iovec& part : request.parts) {
          std::memcpy(at, part.iov_base, part.iov_len);
          at += part.iov_len;
        }
        break;
      default:
        std::memset(at, 0, request.length);
        break;
    }
    if (request.durable) {
      std::memcpy(stable.data() + request.offset, cache_.data() + request.offset, request.length);
    }
    return 0;
  }

  std::vector<std::byte> cache_;
  std::vector<BackendRequest*> done_;
};

}  // namespace outboard::nvme::test
