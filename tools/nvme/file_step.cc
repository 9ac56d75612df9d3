#include "tools/nvme/file_step.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include <fcntl.h>
#include <linux/falloc.h>

namespace outboard::nvme {
namespace {

using Kind = BackendRequest::Kind;

constexpr u32 kMaxRetries = 64;  // of EINTR and EAGAIN
constexpr u32 kWriteThem = 2;    // write_zeroes: attempts 0 and 1 are the two modes of fallocate

alignas(4096) constexpr std::array<std::byte, 64 << 10> kZeros{};

void consume(std::vector<iovec>& parts, u64 bytes) {
  std::size_t whole = 0;
  while (whole < parts.size() && parts[whole].iov_len <= bytes) bytes -= parts[whole++].iov_len;
  parts.erase(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(whole));
  if (bytes != 0) {
    parts.front().iov_base = static_cast<std::byte*>(parts.front().iov_base) + bytes;
    parts.front().iov_len -= bytes;
  }
}

}  // namespace

FileStep next_step(BackendRequest& request) {
  FileStep step;
  step.offset = request.offset + request.progress;
  step.length = request.length - request.progress;
  switch (request.kind) {
    case Kind::read:
    case Kind::write:
      step.call = request.kind == Kind::read ? FileStep::Call::readv : FileStep::Call::writev;
      step.parts = request.parts.data();
      step.count = static_cast<unsigned>(request.parts.size());
      step.flags = request.kind == Kind::write && request.durable ? RWF_DSYNC : 0;
      return step;
    case Kind::flush:
      step.call = FileStep::Call::sync;
      return step;
    case Kind::discard:
      step.call = FileStep::Call::allocate;
      step.flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
      return step;
    case Kind::write_zeroes:
      break;
  }
  if (request.attempt < kWriteThem) {
    const bool punch = request.may_discard == (request.attempt == 0);
    step.call = FileStep::Call::allocate;
    step.flags = (punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;
    return step;
  }
  request.parts.assign(1, {const_cast<std::byte*>(kZeros.data()),
                           std::min<std::size_t>(step.length, kZeros.size())});
  step.call = FileStep::Call::writev;
  step.parts = request.parts.data();
  step.count = 1;
  return step;
}

bool take_result(BackendRequest& request, long result) {
  if (result == -EINTR || result == -EAGAIN) {
    if (++request.retries <= kMaxRetries) return false;
    request.error = EIO;
    return true;
  }
  if (result < 0) {
    const bool unsupported = result == -EOPNOTSUPP || result == -ENOSYS || result == -EINVAL;
    if (unsupported && request.kind == Kind::write_zeroes && request.attempt < kWriteThem) {
      ++request.attempt;
      return false;
    }
    // A discard is advice: where it cannot be followed the blocks keep their content.
    const bool advice = unsupported && request.kind == Kind::discard;
    request.error = advice ? 0 : static_cast<int>(-result);
    return true;
  }
  request.error = 0;
  switch (request.kind) {
    case Kind::flush:
    case Kind::discard:
      return true;
    case Kind::write_zeroes:
      if (request.attempt < kWriteThem) return true;
      break;
    case Kind::read:
    case Kind::write:
      consume(request.parts, static_cast<u64>(result));
      break;
  }
  if (result == 0) {
    request.error = EIO;  // the file has become shorter
    return true;
  }
  request.progress += static_cast<u64>(result);
  return request.progress >= request.length;
}

}  // namespace outboard::nvme
