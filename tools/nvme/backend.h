// Where blocks live. A backend takes requests and finishes them later; one thread submits,
// reaps and waits.
#pragma once

#include <cstddef>
#include <vector>

#include <sys/uio.h>

#include "tools/nvme/spec.h"

namespace outboard::nvme {

struct BackendRequest {
  enum class Kind : u8 { read, write, flush, write_zeroes, discard };

  Kind kind = Kind::flush;
  bool durable = false;      // a write is on stable storage when it completes
  bool may_discard = false;  // write_zeroes may free the blocks
  u64 offset = 0;            // bytes
  u64 length = 0;            // bytes; a read's or write's equals the sum of parts
  std::vector<iovec> parts;  // consumed by the backend
  int error = 0;             // set on completion: 0 or a positive errno

  // The backend's own while it has the request.
  u32 attempt = 0;
  u32 retries = 0;
  u64 progress = 0;  // bytes done
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual u64 size() const = 0;              // bytes
  virtual const char* describe() const = 0;  // "io_uring, O_DIRECT", for one line of a log
  virtual bool volatile_cache() const = 0;   // a completed write may need a flush to last
  virtual u32 memory_alignment() const = 0;  // of every part's address and length, bytes
  virtual u64 allocated() const = 0;         // bytes in use, at most size()

  // The smallest unit of later requests; called with none in flight. 512 or 4096.
  virtual void set_block_size(u32 bytes) = 0;

  // Takes the request; it must stay in place until reap() gives it back. Never blocks on media.
  virtual void submit(BackendRequest& request) = 0;
  // Hands to the operating system what was submitted since the last call.
  virtual void kick() = 0;
  // Appends the finished requests. Never blocks.
  virtual void reap(std::vector<BackendRequest*>& done) = 0;
  // Blocks until reap() would return something; only with requests in flight.
  virtual void wait() = 0;
  // Readable while reap() would return something; -1 when requests finish inside submit().
  virtual int poll_fd() const = 0;
};

}  // namespace outboard::nvme
